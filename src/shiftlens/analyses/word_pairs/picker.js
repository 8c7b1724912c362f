"use strict";
// One map of heads at a time: the chosen one is shown, the others are hidden.
(() => {
  const pick = document.getElementById("pick-pairs");
  if (!pick) return;
  const show = () => {
    for (const map of document.querySelectorAll(".pairs-map")) {
      map.hidden = map.id !== `figure-${pick.value}`;
      if (!map.hidden && map.classList.contains("drawn")) Plotly.Plots.resize(map);
    }
  };
  pick.closest("p").hidden = false;
  pick.addEventListener("change", show);
  ShiftLens.onPaint(show);
})();
