// Heat of texts that no query holds: the first image alone, so that it comes soon, and then a few at
// a time, which takes less time for each; all are shown as they come.
"use strict";
(async () => {
  const AT_ONCE = 4;
  const { late, ids } = JSON.parse(document.getElementById("data").textContent);
  const status = document.getElementById("late");
  if (!late.kinds.length || !ids.length) {
    return;
  }
  let missing = 0;
  status.hidden = false;
  try {
    for (let first = 0, after = 1; first < ids.length; first = after, after += AT_ONCE) {
      status.textContent = `computing heat: image ${first + 1} of ${ids.length}`;
      const part = ids.slice(first, after).map((id) => `&id=${encodeURIComponent(id)}`);
      const reply = await fetch(late.address + part.join(""));
      if (!reply.ok) {
        throw new Error(await reply.text());
      }
      for (const [place, maps] of (await reply.json()).entries()) {
        maps.forEach((map, number) => window.legradHeat(first + place, late.kinds[number], map));
        missing += maps.length ? 0 : 1;
      }
    }
    status.hidden = !missing;
    status.textContent = missing ? `no heat of ${missing} ${missing === 1 ? "image" : "images"} that could not be fetched` : "";
  } catch (error) { // the page is being left, the server has ended, or its model cannot be used
    status.textContent = `no more heat: ${error.message}`;
  }
})();
