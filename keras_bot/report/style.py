"""The page's style sheet and its only script, which sorts tables; both are embedded in the page."""

_LIGHT = """
  --page: #fbfbfa; --card: #ffffff; --text: #1c1c1a; --muted: #6b6a66; --line: #e3e2de; --accent: #1f63b8;
  --right: #9cc4f0; --wrong: #f2a98a; --note: #fdf3d8; --note-line: #d9a514;
  --run-0: #2a78d6; --run-1: #d9581f; --run-2: #158a61; --run-3: #6a4bc4;
  --run-4: #c2447c; --run-5: #a97600; --run-6: #3d7a1f; --run-7: #c73a3a;"""

_DARK = """
  --page: #161615; --card: #1f1f1d; --text: #ecebe6; --muted: #a3a29b; --line: #3a3936; --accent: #7db4f5;
  --right: #1f5a9c; --wrong: #9a4420; --note: #332b14; --note-line: #b98d1a;
  --run-0: #5a9ff0; --run-1: #f08252; --run-2: #35b98a; --run-3: #a08cf0;
  --run-4: #e678a8; --run-5: #d6a32e; --run-6: #7fbf5a; --run-7: #f07a7a;"""

STYLE = (
    ":root { color-scheme: light dark;"
    + _LIGHT
    + " }\n@media (prefers-color-scheme: dark) { :root {"
    + _DARK
    + " } }\n@media print { :root { color-scheme: light;"
    + _LIGHT
    + """ } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { max-width: 75ch; margin: .5rem 0; }
a { color: var(--accent); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .6rem 0; }
footer { color: var(--muted); font-size: .85rem; margin: 3rem auto 2rem; }
.note { background: var(--note); border-left: 4px solid var(--note-line); padding: .4rem .8rem; margin: 1rem 0; }
.note ul { margin: 0; padding-left: 1.1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem;
  flex: 1 1 8.5rem; }
.tiles dt { color: var(--muted); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 600; white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 1rem; }
figure { margin: 1rem 0; min-width: 0; }
.grid figure { margin: 0; }
.wide > figure { max-width: 720px; }
figcaption { color: var(--muted); font-size: .85rem; margin-top: .3rem; }
figure > img { display: block; max-width: 100%; height: auto; }
.side-by-side { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.side-by-side > * { max-width: 100%; }
.side-by-side > .compact { max-width: 402px; }
.compact img { image-rendering: pixelated; border: 1px solid var(--line); }
svg { display: block; width: 100%; height: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
svg text { fill: var(--muted); font-size: 12px; }
svg .label { fill: var(--text); font-size: 13px; }
svg .tiny { font-size: 9px; text-anchor: middle; }
@media (max-width: 500px) { svg text { font-size: 15px; } svg .label { font-size: 16px; } }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--muted); }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg .line.dashed { stroke-width: 1.5; stroke-dasharray: 5 3; opacity: .75; }
svg .area { fill: currentColor; opacity: .13; }
svg circle { fill: currentColor; }
svg .mark { stroke-width: 2; }
svg .mark.dashed { stroke-dasharray: 4 4; }
svg .bar { fill: currentColor; opacity: .65; }
svg .miss { fill: none; stroke: currentColor; stroke-dasharray: 2 2; }
svg .hover { fill: transparent; }
svg .diagonal { stroke: var(--muted); stroke-dasharray: 5 4; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .5rem 0;
  font-size: .9rem; }
.legend span { display: inline-block; width: 1.6em; border-top: 3px solid; vertical-align: middle; margin-right: .5em; }
.legend span.dashed { border-top-style: dashed; }
.scroll { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
caption { max-width: calc(100vw - 2rem); text-align: left; color: var(--muted); font-size: .85rem;
  padding-bottom: .3rem; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 500; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.numbers td { white-space: nowrap; }
.numbers.second-text td:nth-child(2), .numbers.second-text th:nth-child(2),
.numbers.last-text td:last-child, .numbers.last-text th:last-child { text-align: left; }
.facts td, .recipe td { max-width: 26rem; overflow-wrap: break-word; min-width: 7rem; }
.facts td { min-width: 11rem; }
.facts tbody th, .recipe tbody th { white-space: nowrap; }
td ul { margin: 0; padding-left: 1.1rem; }
td.default { color: var(--muted); }
.confusion td { text-align: center; padding: .2rem .3rem; min-width: 2.3rem; border: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
.confusion tbody th { position: sticky; left: 0; background: var(--page); white-space: nowrap; }
.confusion .turned { text-align: left; padding: .8rem .3rem .3rem; vertical-align: bottom; }
.confusion .turned span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.confusion .right { background: color-mix(in srgb, var(--right) var(--share, 0%), var(--card)); }
.confusion .wrong { background: color-mix(in srgb, var(--wrong) var(--share, 0%), var(--card)); }
.mistakes { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
.mistakes figure { margin: 0; }
.mistakes img { width: 100%; border-radius: 6px; }
.mistakes img.pixels { image-rendering: pixelated; }
.mistakes strong, .mistakes span, .mistakes small { display: block; line-height: 1.35; }
.mistakes strong { color: var(--text); }
.mistakes .probability { display: inline; font-weight: 400; white-space: nowrap; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--accent); }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--accent); }
th button::after { content: " ↕"; color: var(--muted); }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
pre { margin: 0; font: .85rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media print {
  nav, th button::after { display: none; }
  body { font-size: 11pt; }
  figure, tr, .tiles div { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .scroll { overflow: visible; }
  .bar, .confusion td, .legend span { print-color-adjust: exact; }
}
"""
)

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim(), number = Number(text.replace(/[,%\\s]/g, ""));
    return text === "–" ? -Infinity : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => order(value(a, column), value(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}
"""
