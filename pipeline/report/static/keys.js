// Arrow keys turn to the next and the previous page, if there is one.
"use strict";
document.addEventListener("keydown", (event) => {
  const busy = event.altKey || event.ctrlKey || event.metaKey
    || event.target.closest("input, select, [tabindex], pre");
  const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = way && !busy && document.querySelector(`a[rel=${way}]`);
  if (link) {
    link.click();
  }
});
