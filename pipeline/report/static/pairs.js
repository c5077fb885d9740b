// The table: search, sort and keys. Only the first rows are in the page; a button adds more.
"use strict";
(() => {
  const all = window.legradTable;
  const STEP = matchMedia("(max-width: 760px)").matches ? 20 : 50;
  const EFFECTS = ["association", "probe_reliance", "clip_reliance", "model_reliance"];
  const get = (name) => document.getElementById(name);
  const body = document.querySelector("#pairs tbody");
  const judged = Object.keys(all.verdict).length > 0;
  const effects = EFFECTS.filter((claim) => all.claims[claim]?.asked)
    .map((claim) => [claim === "association" ? "odds ratio" : all.claims[claim].name, claim]);
  const now = { claim: "association", sort: "rank", down: true, shown: STEP, rows: [] };

  const nameOf = (row) => all.classes[all.class[row]];
  const cueOf = (row) => all.cues[all.cue[row]];
  // title, value, whether the largest comes first; null: not sortable
  const columns = [
    ["class", nameOf, false], ["cue", cueOf, false], ["images", (row) => all.images[all.class[row]], true],
    ["with cue, elsewhere", (row) => all.share[row], true],
    ...effects.map(([title, claim]) => [title, (row) => window.legradRow.at(claim, "low", row), true]),
    ["heat on it", (row) => all.heat_on_cue[row] ?? null, true],
    ["claim", (row) => window.legradRow.at(now.claim, "flag", row) ?? 0, true],
    ["verdict", (row) => all.verdict[row] ?? "", false],
  ];

  function compare(value, down) {
    return (a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null || x === "" || y === "") {
        const missing = (v) => Number(v === null || v === "");
        return missing(x) - missing(y) || a - b;
      }
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return (down ? -order : order) || a - b;
    };
  }

  function wanted() {
    const text = get("find").value.trim().toLowerCase();
    const show = get("show").value;
    const states = { flagged: "flagged", "not flagged": "clear" };
    const cues = all.cues.map((name) => name.toLowerCase().includes(text));
    const classes = all.classes.map((name) => name.toLowerCase().includes(text));
    return all.class.map((_, row) => row).filter((row) =>
      (cues[all.cue[row]] || classes[all.class[row]])
      && (show === "all" || (states[window.legradRow.state(row, now.claim)] ?? "unknown") === show));
  }

  function select() {
    now.rows = wanted();
    const column = columns.find(([title]) => title === now.sort);
    if (column) {
      now.rows.sort(compare(column[1], now.down));
    }
    now.shown = STEP;
    fill();
  }

  function fill() {
    const rows = now.rows.slice(0, now.shown);
    body.replaceChildren(...rows.map((row) => window.legradRow.make(row, now.claim, effects)));
    get("count").textContent = `${now.rows.length.toLocaleString("en")} of `
      + `${all.class.length.toLocaleString("en")} pairs`;
    get("more").hidden = now.rows.length <= now.shown;
    for (const head of document.querySelectorAll("#pairs thead th")) {
      const mine = head.dataset.title === now.sort;
      head.setAttribute("aria-sort", mine ? (now.down ? "descending" : "ascending") : "none");
    }
  }

  function sortBy(title) {
    const first = columns.find(([name]) => name === title)?.[2] ?? true;
    now.down = now.sort === title ? !now.down : first;
    now.sort = title;
    get("sort").value = title;
    select();
  }

  function head() {
    const line = document.querySelector("#pairs thead tr");
    get("sort").append(new Option("strongest first", "rank"));
    for (const [title] of columns) {
      const cell = document.createElement("th");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => sortBy(title));
      cell.scope = "col";
      cell.dataset.title = title;
      cell.append(button);
      line.append(cell);
      get("sort").append(new Option(title, title));
    }
    document.getElementById("pairs").classList.toggle("judged", judged);
    for (const [claim, { name, asked }] of Object.entries(all.claims)) {
      const option = new Option(name + (asked ? "" : ": not asked for"), claim);
      option.disabled = !asked;
      get("claim").append(option);
    }
  }

  function move(step) {
    const links = [...body.querySelectorAll("tr")].map((row) => row.querySelector("a")).filter(Boolean);
    const here = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    const next = links[Math.min(links.length - 1, Math.max(0, here + step))];
    next?.focus();
    next?.closest("tr").scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const typing = event.target.closest("input, select");
    if (event.key === "Escape" && typing === get("find")) {
      typing.value = "";
      select();
    } else if (event.key === "/" && !typing) {
      event.preventDefault();
      get("find").focus();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key)
      && (!typing || typing === get("find"))) {
      event.preventDefault();
      move(event.key === "ArrowDown" ? 1 : -1);
    }
  });

  head();
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  get("find").addEventListener("input", select);
  get("show").addEventListener("change", select);
  get("claim").addEventListener("change", () => { now.claim = get("claim").value; select(); });
  get("sort").addEventListener("change", () => { now.sort = ""; sortBy(get("sort").value); });
  get("more").addEventListener("click", () => { now.shown += 2 * STEP; fill(); });
  const asked = new URLSearchParams(location.hash.slice(1)).get("find");
  if (asked) {
    get("find").value = asked;
  }
  select();
})();
