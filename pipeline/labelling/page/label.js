// One picture after another, three keys. On a page from disk, answers stay in the browser until they
// are saved as a file; where `data.live` names a server, it stores each one before the next is asked.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const name = (task) => JSON.stringify([task.cue, task.id]);
  const storage = `legrad-labels:${data.run}`;
  const answers = new Map();
  const order = []; // names of the tasks that were answered here, the last one last
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
    at("who").value = localStorage.getItem("legrad-labels-who") || "";
  } catch (error) { // storage may be forbidden for files
    kept = false;
  }

  const keep = () => {
    try {
      if (!data.live) {
        localStorage.setItem(storage, JSON.stringify(Object.fromEntries(answers)));
      }
      localStorage.setItem("legrad-labels-who", at("who").value);
      kept = true;
    } catch (error) {
      kept = false;
    }
    at("notice").textContent = kept || data.live ? "" : "This browser keeps nothing for files: save before you close the page.";
  };

  const given = (task) => (answers.get(name(task)) || {}).answer || "";
  const current = () => data.tasks.find((task) => !given(task));

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

  const missing = (why) => {
    at("picture").hidden = true;
    at("gone").hidden = false;
    at("gone").textContent = `This image could not be read (${why}); answer “cannot tell”.`;
  };

  // Whether the answer is stored: at once on a page from disk.
  const stored = async (task, text) => {
    if (!data.live) {
      return true;
    }
    sending = true;
    try {
      const said = { image_id: task.id, cue: task.cue, answer: text, who: at("who").value.trim() };
      const reply = await fetch(data.live.answer, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...data.live.pair, ...said }),
      });
      const told = await reply.text(); // read to its end, or the connection stays in use
      if (!reply.ok) {
        throw new Error(told);
      }
      dispatchEvent(new Event("legrad-answer"));
      return true;
    } catch (error) {
      at("notice").textContent = `This answer is not stored: ${error.message}`;
      return false;
    } finally {
      sending = false;
    }
  };

  const answer = async (text) => {
    const task = current();
    if (!task || task.cue !== begun || sending || !(await stored(task, text))) {
      return;
    }
    const when = new Date().toISOString();
    answers.set(name(task), { answer: text, who: at("who").value.trim(), when });
    order.push(name(task));
    keep();
    show();
  };

  const undo = async () => {
    const last = order.at(-1);
    const task = data.tasks.find((other) => name(other) === last);
    if (task && !sending && (await stored(task, ""))) {
      order.pop();
      answers.delete(last);
      begun = JSON.parse(last)[0];
      keep();
      show();
    }
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
    if (keys[key]) {
      answer(keys[key]);
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
