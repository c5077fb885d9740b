// Heat of a text that no query holds: one image after another, each shown as it comes.
"use strict";
(async () => {
  const { late, ids } = JSON.parse(document.getElementById("data").textContent);
  const status = document.getElementById("late");
  let missing = 0;
  for (const [kind, address] of late) {
    for (const [place, id] of ids.entries()) {
      status.hidden = false;
      status.textContent = `computing heat: ${place} of ${ids.length} images`;
      try {
        const reply = await fetch(`${address}&id=${encodeURIComponent(id)}`);
        const told = await reply.text();
        if (reply.ok) {
          window.legradHeat(place, kind, JSON.parse(told));
        }
        missing += reply.ok ? 0 : 1;
      } catch (error) { // the page is being left, or the server has ended
        status.textContent = `no more heat: ${error.message}`;
        return;
      }
    }
  }
  if (status) {
    status.hidden = !missing;
    status.textContent = missing ? `${missing} images have no heat, because they could not be fetched` : "";
  }
})();
