// The estimate moves as answers come: asked for again after each one, one request at a time.
"use strict";
(() => {
  const panel = document.getElementById("estimate");
  const at = (id) => document.getElementById(id);
  const percent = (value) => `${Math.round(value * 100)}\u00a0%`;
  const points = (value) => `${value > 0 ? "+" : ""}${Math.round(value * 100)} points`;
  let asking = false;
  let stale = false;

  const show = (values) => {
    const known = Boolean(values) && values.difference !== undefined;
    at("intervals").hidden = !known;
    if (!known) {
      return;
    }
    const least = Number(panel.dataset.least);
    const enough = Math.min(values.labels, values.labels_elsewhere) >= least;
    at("said").textContent = `${values.labels} answers on the class, ${values.labels_elsewhere} on others: `
      + (enough ? "enough for a claim. Compute the findings again." : `${least} of each are needed for a claim.`);
    at("share").textContent = percent(values.share);
    at("elsewhere").textContent = percent(values.share_elsewhere);
    at("difference").textContent = points(values.difference);
    at("low").textContent = points(values.difference_low);
    at("high").textContent = points(values.difference_high);
    const place = (value) => 50 + 50 * Math.max(-1, Math.min(1, value));
    at("zero").style.left = "50%";
    at("line").style.left = `${place(values.difference_low)}%`;
    at("line").style.width = `${place(values.difference_high) - place(values.difference_low)}%`;
    at("dot").style.left = `${place(values.difference)}%`;
  };

  const ask = async () => {
    stale = true;
    if (asking) {
      return;
    }
    asking = true;
    while (stale) {
      stale = false;
      try {
        const reply = await fetch(panel.dataset.address);
        if (!reply.ok) {
          throw new Error(await reply.text());
        }
        show(await reply.json());
      } catch (error) {
        at("said").textContent = `No estimate: ${error.message}`;
      }
    }
    asking = false;
  };

  addEventListener("legrad-answer", ask);
  ask();
})();
