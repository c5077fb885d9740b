// Light, dark, or as the system has it. Runs before the page is drawn, so that nothing flashes.
"use strict";
(() => {
  const choices = ["system", "light", "dark"];
  const memory = {
    read() {
      try {
        return localStorage.getItem("legrad-theme");
      } catch (error) { // storage may be forbidden for files; then the system decides
        return null;
      }
    },
    keep(value) {
      try {
        localStorage.setItem("legrad-theme", value);
      } catch (error) {
        document.documentElement.dataset.unkept = error.name;
      }
    },
  };
  let chosen = choices.includes(memory.read()) ? memory.read() : "system";
  const show = () => { document.documentElement.dataset.theme = chosen; };
  show();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = `Theme: ${chosen}`; };
    button.hidden = false;
    button.addEventListener("click", () => {
      chosen = choices[(choices.indexOf(chosen) + 1) % choices.length];
      memory.keep(chosen);
      show();
      label();
    });
    label();
  });
})();
