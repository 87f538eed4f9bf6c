"""What makes the graph move: the script inside each SVG, and nothing else.

A string and not a file of its own, so that every way of packaging takes it along.
"""

from typing import Final

SCRIPT: Final = """\
// What makes the graph move: zoom by click, search by regular expression.  No names but its own.
(function () {
  "use strict";
  var PAD = 10, WIDTH = 1200, CHARACTER = 7;
  var frames = Array.prototype.slice.call(document.querySelectorAll("g.f")).map(function (g) {
    return { g: g, x: +g.dataset.x, w: +g.dataset.w, d: +g.dataset.d, n: g.dataset.n,
             rect: g.querySelector("rect"), text: g.querySelector("text"),
             fill: g.querySelector("rect").getAttribute("fill"),
             title: g.querySelector("title").textContent };
  });
  var reset = document.getElementById("reset"), search = document.getElementById("search");
  var told = document.getElementById("told"), found = document.getElementById("found");
  var shown = frames[0], pattern = null;

  function label(name, width) {
    var room = Math.floor((width - 6) / CHARACTER);
    return room < 3 ? "" : name.length <= room ? name : name.slice(0, room - 2) + "..";
  }

  function zoom(to) {
    var scale = (WIDTH - 2 * PAD) / to.w;
    shown = to;
    frames.forEach(function (f) {
      var below = f.d < to.d && f.x <= to.x + 0.01 && f.x + f.w >= to.x + to.w - 0.01;
      var inside = f.d >= to.d && f.x >= to.x - 0.01 && f.x + f.w <= to.x + to.w + 0.01;
      var left = below ? PAD : PAD + (f.x - to.x) * scale;
      var width = below ? WIDTH - 2 * PAD : f.w * scale;
      f.g.style.display = below || inside ? "" : "none";
      f.g.style.opacity = below ? 0.5 : 1;
      f.rect.setAttribute("x", left);
      f.rect.setAttribute("width", width);
      f.text.setAttribute("x", left + 3);
      f.text.textContent = label(f.n, width);
    });
    reset.setAttribute("visibility", to === frames[0] ? "hidden" : "visible");
    mark();
  }

  // The share of frames that match, each stretch counted once.
  function mark() {
    var spans = [], covered = 0, end = -1;
    frames.forEach(function (f) {
      var hit = pattern !== null && pattern.test(f.n);
      f.rect.setAttribute("fill", hit ? "rgb(230,0,230)" : f.fill);
      if (hit && f.d >= shown.d && f.x >= shown.x - 0.01 && f.x + f.w <= shown.x + shown.w + 0.01) {
        spans.push([f.x, f.x + f.w]);
      }
    });
    spans.sort(function (a, b) { return a[0] - b[0] || b[1] - a[1]; });
    spans.forEach(function (s) {
      covered += Math.max(0, s[1] - Math.max(s[0], end));
      end = Math.max(end, s[1]);
    });
    found.textContent =
      pattern === null ? " " : "matched " + (100 * covered / shown.w).toFixed(1) + " %";
  }

  function ask() {
    var words = window.prompt("Mark frames that match (a regular expression; empty: none)");
    if (words === null) { return; }
    try {
      pattern = words === "" ? null : new RegExp(words);
    } catch (error) {
      pattern = null;
      window.alert(error.message);
    }
    mark();
  }

  frames.forEach(function (f) {
    f.g.addEventListener("click", function () { zoom(f); });
    f.g.addEventListener("mouseover", function () { told.textContent = f.title; });
    f.g.addEventListener("mouseout", function () { told.textContent = " "; });
  });
  reset.addEventListener("click", function () { zoom(frames[0]); });
  search.addEventListener("click", ask);
  window.addEventListener("keydown", function (event) {
    if (event.key === "f" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); }
  });
}());
"""
