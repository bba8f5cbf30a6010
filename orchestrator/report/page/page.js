// Draws every figure from the JSON beside it, in the page's own ink, light or dark.
"use strict";
const plots = [...document.querySelectorAll(".plot")];

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 };
  const hoverlabel = { bgcolor: colour("--paper"), bordercolor: colour("--line"), font };
  const lines = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--dim") };
  const axis = (own) => ({ ...lines, ...own, title: { font: { size: 13 }, ...own.title } });
  const axes = Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key));
  return { ...layout, font, hoverlabel, ...Object.fromEntries(axes.map(([key, own]) => [key, axis(own)])) };
}

function draw() {
  // A finger that scrolls must not zoom.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  for (const plot of plots) {
    const { data, layout } = JSON.parse(plot.nextElementSibling.textContent);
    Plotly.react(plot, data, { ...themed(layout), dragmode }, { responsive: true, displayModeBar: false });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("beforeprint", draw);
addEventListener("afterprint", draw);
