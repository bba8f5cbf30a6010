// Shows a picture in the size of the window while it is wanted.
"use strict";
const frame = document.createElement("dialog");
frame.addEventListener("click", () => frame.close());
document.body.append(frame);
for (const button of document.querySelectorAll(".panels button")) {
  button.addEventListener("click", () => {
    const caption = document.createElement("p");
    caption.textContent = button.firstElementChild.alt;
    frame.replaceChildren(button.firstElementChild.cloneNode(), caption);
    frame.showModal();
  });
}
