"""How a report looks, and its only script: the slider of the pictures. Both work without any other file."""

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --ink: #1c1f23; --soft: #667; --edge: #d8dbe0;
  --card: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15171a; --ink: #e6e8eb; --soft: #9aa3ad; --edge: #33383f; --card: #1d2024; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1200px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 24px; } h2 { font-size: 19px; margin-top: 36px; border-top: 1px solid var(--edge);
  padding-top: 16px; }
h3 { font-size: 15px; margin: 0 0 4px; }
table { border-collapse: collapse; } td, th { padding: 3px 14px 3px 0; text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; } thead th { border-bottom: 1px solid var(--edge); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 18px; }
.chart { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 12px; }
.chart svg { width: 100%; height: auto; display: block; }
.legend { color: var(--soft); font-size: 13px; }
.entry { white-space: nowrap; }
.swatch { display: inline-block; width: 18px; height: 0; border-top: 3px solid;
  vertical-align: middle; margin: 0 5px 0 10px; }
.swatch.dashed { border-top-style: dashed; }
.wide { overflow-x: auto; }
.strip { display: flex; gap: 8px; } .strip figure { margin: 0; font-size: 12px; color: var(--soft); }
figure.steps { margin: 12px 0; } figure.steps img { max-width: 100%; height: auto; display: block; }
figure.steps input { width: min(100%, 500px); }
.hidden { display: none; }
.problems { border-left: 4px solid #e0803a; padding-left: 14px; }
.problems p { margin: 2px 0; }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: 13px; }
small { color: var(--soft); }
"""

SCRIPT = """
for (const figure of document.querySelectorAll("figure.steps")) {
  const shots = Array.from(figure.querySelectorAll(".shot"));
  const slider = figure.querySelector("input");
  const show = function () {
    shots.forEach(function (shot, place) {
  shot.classList.toggle("hidden", place !== Number(slider.value)); });
  };
  slider.classList.remove("hidden");
  slider.addEventListener("input", show);
  show();
}
"""
