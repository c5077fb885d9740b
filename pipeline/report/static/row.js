// One row of the table. Names go in as text, never as markup.
"use strict";
window.legradRow = (() => {
  const all = window.legradTable;
  const HIGHEST = 1000; // of the scale of odds ratios, and its inverse root the lowest
  const LOWEST = 0.1;

  function element(name, kind, text) {
    const made = document.createElement(name);
    if (kind) {
      made.className = kind;
    }
    if (text !== undefined) {
      made.textContent = text;
    }
    return made;
  }

  function linked(text, address) {
    const link = address ? element("a", "", text) : element("span", "", text);
    if (address) {
      link.href = address;
    }
    return link;
  }

  const percent = (value) => {
    if (value === null) {
      return "n/a";
    }
    return value > 0 && value < 0.005 ? "<1\u00a0%" : `${Math.round(value * 100)}\u00a0%`;
  };
  const odds = (value) => {
    if (value === null) {
      return "n/a";
    }
    return value >= HIGHEST ? `>${HIGHEST}` : value.toFixed(value >= 10 ? 0 : 1);
  };

  function shares(row) {
    const cell = element("td", "shares");
    cell.dataset.name = "with cue, elsewhere";
    const here = all.share[row], there = all.share_elsewhere[row];
    if (here !== null) {
      const bar = element("span", "bar");
      const fill = element("span", "fill"), tick = element("span", "tick");
      fill.style.width = `${here * 100}%`;
      tick.style.left = `${there * 100}%`;
      bar.append(fill, tick);
      bar.setAttribute("aria-hidden", "true");
      cell.append(bar);
    }
    cell.append(element("span", "value", here === null ? "n/a" : `${percent(here)}, ${percent(there)}`));
    return cell;
  }

  function position(value) {
    const bounded = Math.min(HIGHEST, Math.max(LOWEST, value));
    return 100 * Math.log(bounded / LOWEST) / Math.log(HIGHEST / LOWEST);
  }

  // A claim's value; columns may be sparse.
  const at = (claim, field, row) => all.claims[claim][field]?.[row] ?? null;
  const signed = (value) => value.toFixed(1) === "-0.0" ? "0.0" : (value > 0 ? "+" : "") + value.toFixed(1);
  const amounts = { clip_reliance: signed, probe_reliance: percent, model_reliance: percent };

  function effect(row, claim, title) {
    const cell = element("td", "effect");
    cell.dataset.name = title;
    const [middle, low, high] = ["effect", "low", "high"].map((field) => at(claim, field, row));
    if (middle === null) {
      cell.append(element("span", "reason", claim === "association" ? "n/a" : state(row, claim)));
      return cell;
    }
    const format = amounts[claim] ?? odds;
    if (claim === "association") {
      const line = element("span", "whisker");
      const span = element("span", "span"), dot = element("span", "dot");
      const zero = element("span", "one");
      zero.style.left = `${position(1)}%`;
      span.style.left = `${position(low)}%`;
      span.style.width = `${position(high) - position(low)}%`;
      dot.style.left = `${position(middle)}%`;
      line.append(zero, span, dot);
      line.setAttribute("aria-hidden", "true");
      cell.append(line);
    }
    const interval = low === null ? "" : ` (${format(low)} to ${format(high)})`;
    const flagged = claim !== "association" && at(claim, "flag", row);
    cell.append(element("span", flagged ? "value marked" : "value", format(middle) + interval));
    return cell;
  }

  const PREFIX = /^not (measured|testable|tested): /;

  function reason(row, claim) {
    const one = all.claims[claim];
    return one.asked ? one.reasons[at(claim, "reason", row) ?? one.usual] : "";
  }

  function state(row, claim) {
    if (!all.claims[claim].asked) {
      return "not asked for";
    }
    if (at(claim, "flag", row)) {
      return "flagged";
    }
    if (at(claim, "effect", row) !== null) {
      return "not flagged";
    }
    const prefix = reason(row, claim).match(PREFIX);
    return prefix ? `not ${prefix[1]}` : "not measured";
  }

  function claimed(row, claim) {
    const cell = element("td", "claimed");
    const status = state(row, claim);
    cell.append(element("span", `badge ${status.replace(" ", "-")}`, status));
    const why = reason(row, claim).replace(PREFIX, "");
    if (why && status !== "flagged") {
      cell.append(element("span", "reason", why));
    }
    return cell;
  }

  function make(row, claim, effects) {
    const line = element("tr");
    const name = element("th", "names");
    name.scope = "row";
    const cls = all.class[row], page = all.page[row];
    const home = all.class_pages[cls] && `classes/${all.class_pages[cls]}.html`;
    name.append(linked(all.cues[all.cue[row]], page && `pairs/${page}.html`));
    const of = element("td", "class");
    of.append(linked(all.classes[cls], home));
    const heat = element("td", "num", odds(all.heat_on_cue[row] ?? null));
    heat.dataset.name = "heat on the cue";
    const verdict = element("td", "verdict", all.verdict[row] ?? "");
    const count = element("td", "num", all.images[cls].toLocaleString("en"));
    count.dataset.name = "images";
    const found = effects.map(([title, one]) => effect(row, one, title));
    line.append(of, name, count, shares(row), ...found, heat, claimed(row, claim), verdict);
    return line;
  }

  return { at, make, state };
})();
