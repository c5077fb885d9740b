// One picture after another and three keys, or several pictures of which those with the cue are
// marked. On a page from disk, answers stay in the browser until they are saved as a file; where
// `data.live` names a server, it stores them before the next pictures are shown.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const name = (task) => JSON.stringify([task.cue, task.id]);
  const storage = `legrad-labels:${data.run}`;
  const answers = new Map();
  const order = []; // names of the tasks that were answered here together, the last ones last
  const TILES = 12;
  const marks = new Map(); // of pictures that are shown together and not stored: what is not absent
  let together = false;
  let begun = null; // the cue whose pictures are shown
  let kept = true;
  let sending = false;

  const newer = (key, value) => {
    const before = answers.get(key);
    if (!before || before.when <= value.when) {
      answers.set(key, value);
    }
  };
  for (const [id, cue, answer, who, when] of data.answers) {
    newer(name({ cue, id }), { answer, who, when });
  }
  try {
    const remembered = data.live ? null : localStorage.getItem(storage);
    for (const [key, value] of Object.entries(JSON.parse(remembered || "{}"))) {
      newer(key, value);
    }
    at("who").value = (!data.live && localStorage.getItem("legrad-labels-who")) || "";
  } catch (error) { // storage may be forbidden for files
    kept = false;
  }

  const keep = () => {
    try {
      if (!data.live) {
        localStorage.setItem(storage, JSON.stringify(Object.fromEntries(answers)));
        localStorage.setItem("legrad-labels-who", at("who").value);
      }
      kept = true;
    } catch (error) {
      kept = false;
    }
    at("notice").textContent = kept || data.live ? "" : "This browser keeps nothing for files: save before you close the page.";
  };

  const given = (task) => (answers.get(name(task)) || {}).answer || "";
  const current = () => data.tasks.find((task) => !given(task));
  const shownTogether = () =>
    data.tasks.filter((task) => task.cue === begun && !given(task)).slice(0, TILES);

  const show = () => {
    const task = current();
    const done = data.tasks.filter(given).length;
    at("done").max = data.tasks.length || 1;
    at("done").value = done;
    at("count").textContent = `${done} of ${data.tasks.length}`;
    at("finished").hidden = Boolean(task);
    at("begin").hidden = !task || task.cue === begun;
    at("look").hidden = !task || task.cue !== begun;
    at("undo").disabled = !order.length;
    at("undo-last").hidden = !order.length;
    if (!task) {
      return;
    }
    for (const place of document.querySelectorAll(".cue")) {
      place.textContent = data.cues[task.cue];
    }
    at("one").hidden = together;
    at("many").hidden = !together;
    at("before").textContent = together ? "Which of these show " : "Is there ";
    at("after").textContent = together ? "?" : " in this picture?";
    at("together").textContent = together ? "One at a time " : "Several at a time ";
    if (together) {
      tile();
      return;
    }
    const source = data.pictures[task.picture];
    at("picture").hidden = !source;
    at("gone").hidden = Boolean(source);
    if (source) {
      at("picture").src = source;
    } else {
      missing(data.why[task.picture]);
    }
    if (data.live) { // so that the next picture is there when it is asked for
      const next = data.tasks.find((other) => other !== task && !given(other));
      new Image().src = next ? data.pictures[next.picture] : "";
    }
  };

  const tile = () => {
    const tiles = shownTogether().map((task, place) => {
      const key = name(task);
      const button = document.createElement("button");
      const frame = document.createElement("span");
      const picture = document.createElement("img");
      const said = document.createElement("span");
      button.type = "button";
      button.dataset.name = key;
      button.setAttribute("aria-pressed", String(marks.get(key) === "present"));
      frame.className = "frame";
      picture.alt = `picture ${place + 1}: `;
      picture.src = data.pictures[task.picture] || "data:,";
      said.textContent = marks.get(key) || "absent";
      frame.append(picture);
      button.append(frame, said);
      button.addEventListener("click", () => mark(button, "present"));
      picture.addEventListener("error", () => {
        if (marks.get(key) !== "cannot tell") {
          mark(button, "cannot tell");
        }
      });
      return button;
    });
    at("tiles").replaceChildren(...tiles);
    count();
    tiles[0]?.focus({ preventScroll: true });
  };

  // Marks a picture, or takes the same mark back.
  const mark = (button, text) => {
    if (!button.isConnected) { // a picture that failed after it was answered
      return;
    }
    const key = button.dataset.name;
    const said = marks.get(key) === text ? "absent" : text;
    marks.set(key, said);
    button.setAttribute("aria-pressed", String(said === "present"));
    button.lastChild.textContent = said;
    count();
  };

  const count = () => {
    const said = shownTogether().map((task) => marks.get(name(task)) || "absent");
    const unsure = said.filter((text) => text === "cannot tell").length;
    const present = said.filter((text) => text === "present").length;
    const absent = said.length - present - unsure;
    at("store").firstChild.textContent =
      `Keep ${present} present, ${absent} absent${unsure ? `, ${unsure} cannot tell` : ""} `;
  };

  const moveFocus = (key) => {
    const tiles = [...at("tiles").children];
    const across = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
    const step = { arrowleft: -1, arrowright: 1, arrowup: -across, arrowdown: across }[key];
    const here = tiles.indexOf(document.activeElement);
    tiles[Math.min(tiles.length - 1, Math.max(0, here + step))]?.focus();
  };

  const missing = (why) => {
    at("picture").hidden = true;
    at("gone").hidden = false;
    at("gone").textContent = `This image could not be read (${why}); answer “cannot tell”.`;
  };

  // Whether the answers are stored: at once on a page from disk.
  const stored = async (said, who) => {
    if (!data.live) {
      return true;
    }
    sending = true;
    try {
      const sent = said.map(([task, text]) => [task.id, text]);
      const reply = await fetch(data.live.answer, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...data.live.pair, answers: sent, who }),
      });
      const told = await reply.text(); // read to its end, or the connection stays in use
      if (!reply.ok) {
        throw new Error(told);
      }
      dispatchEvent(new Event("legrad-answer"));
      return true;
    } catch (error) {
      at("notice").textContent = `This is not stored: ${error.message}`;
      return false;
    } finally {
      sending = false;
    }
  };

  const say = async (said) => {
    const who = at("who").value.trim();
    if (!said.length || sending || !(await stored(said, who))) {
      return;
    }
    const when = new Date().toISOString();
    for (const [task, answer] of said) {
      answers.set(name(task), { answer, who, when });
      marks.delete(name(task));
    }
    order.push(said.map(([task]) => name(task)));
    keep();
    show();
  };

  const answer = (text) => {
    const task = current();
    return say(task && task.cue === begun ? [[task, text]] : []);
  };
  const seen = () => [...document.querySelectorAll("#tiles img")].every((image) => image.complete);
  const store = () => seen() && say(shownTogether().map((task) => [task, marks.get(name(task)) || "absent"]));

  const undo = async () => {
    const last = order.at(-1) || [];
    const tasks = data.tasks.filter((other) => last.includes(name(other)));
    const who = answers.get(last[0])?.who; // the name may have changed since
    if (tasks.length && !sending && (await stored(tasks.map((task) => [task, ""]), who))) {
      order.pop();
      for (const key of last) {
        if (together) { // shown again as they were marked
          marks.set(key, answers.get(key).answer);
        }
        answers.delete(key);
      }
      begun = tasks[0].cue;
      keep();
      show();
    }
  };

  const toggle = () => {
    together = !together;
    show();
  };

  const begin = () => {
    const task = current();
    if (task) {
      begun = task.cue;
      show();
    }
  };

  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const table = () => {
    const rows = [data.columns];
    for (const task of data.tasks) {
      const said = answers.get(name(task)) || { answer: "", who: "", when: "" };
      const who = said.who || (said.answer ? at("who").value.trim() : "");
      for (const group of task.groups) {
        rows.push([task.id, task.cue, ...group, said.answer, who, said.when]);
      }
    }
    return `${[...rows, ...data.others].map((row) => row.map(cell).join(",")).join("\n")}\n`;
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    at("notice").textContent = "Saved as labels.csv, in the folder of your downloads.";
  };

  const keys = { 1: "present", p: "present", 2: "absent", a: "absent", 3: "cannot tell", c: "cannot tell" };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.repeat || event.target.closest("input")) {
      return;
    }
    const key = event.key.toLowerCase();
    const tiled = together && !at("look").hidden;
    const tile = tiled && event.target.closest("#tiles button");
    const arrow = key.startsWith("arrow");
    if (tile && keys[key]) {
      mark(tile, keys[key]);
    } else if (tiled && arrow) {
      moveFocus(key);
    } else if (tiled && key === "enter" && (tile || event.target === document.body)) {
      store();
    } else if (keys[key] && !tiled) {
      answer(keys[key]);
    } else if (key === "s" && !at("look").hidden) {
      toggle();
    } else if (key === "z" || key === "backspace") {
      undo();
    } else if (key === " " && !at("begin").hidden) {
      begin();
    } else {
      return;
    }
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("button")) { // or Space would press it again
    button.addEventListener("click", () => button.blur());
  }
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => answer(button.dataset.answer));
  }
  at("go").addEventListener("click", begin);
  at("together").parentElement.addEventListener("click", toggle);
  at("store").addEventListener("click", store);
  at("undo").addEventListener("click", undo);
  at("undo-last").addEventListener("click", undo);
  at("picture").addEventListener("error", () => missing("the server could not fetch it"));
  if (!data.live) {
    at("save").addEventListener("click", save);
    at("save-again").addEventListener("click", save);
    at("next").textContent = data.next;
  }
  at("who").addEventListener("change", keep);
  addEventListener("beforeunload", (event) => {
    if (!kept && !data.live && order.length) {
      event.preventDefault();
    }
  });
  show();
})();
