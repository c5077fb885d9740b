// What all pages share: pictures that cannot be fetched, the user's name, and chosen images.
"use strict";
(() => {
  // Errors of pictures do not bubble, so they are caught on the way down.
  const gone = (image) => {
    const frame = image.closest(".frame");
    if (frame && !frame.classList.contains("without")) {
      const note = document.createElement("span");
      note.className = "gone";
      note.textContent = "no picture";
      frame.classList.add("without");
      frame.append(note);
    }
  };
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) {
      gone(event.target);
    }
  }, true);
  for (const image of document.querySelectorAll(".frame img")) {
    if (image.complete && !image.naturalWidth && image.loading !== "lazy") {
      gone(image);
    }
  }

  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.pathname === location.pathname || (location.pathname === "/" && tab.pathname === "/index.html")) {
      tab.setAttribute("aria-current", "page");
    }
  }

  // In a cookie, because cookies are shared by all ports, and each start of the viewer has its own.
  const [, remembered] = document.cookie.match(/(?:^|; )legrad_name=([^;]*)/) || [];
  for (const who of document.querySelectorAll("input[name=who], #who")) {
    who.value ||= decodeURIComponent(remembered || "");
    who.addEventListener("change", () => {
      const name = encodeURIComponent(who.value.trim());
      document.cookie = `legrad_name=${name}; max-age=31536000; path=/; samesite=strict`;
    });
  }

  // Larger copies, once pictures are made larger than those that a page begins with.
  document.querySelector(".controls input[name=size]")?.addEventListener("change", (event) => {
    for (const image of Number(event.target.value) > 192 ? document.querySelectorAll(".frame img") : []) {
      image.src = image.src.replace("side=192", "side=384");
    }
  });

  const form = document.getElementById("chosen");
  if (form) {
    const count = () => {
      const chosen = form.querySelectorAll("input[name=id]:checked").length;
      for (const button of form.querySelectorAll("[data-needs-choice]")) {
        button.disabled = !chosen;
      }
      document.getElementById("which").textContent = chosen ? `the ${chosen} chosen` : "all of them";
    };
    form.addEventListener("change", count);
    count();
  }

  const find = document.getElementById("find");
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && find && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      find.focus();
    }
  });
})();
