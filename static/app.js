/* Open Data Ops: what JavaScript adds. Every page works without it; nothing here is the only way to do a thing. */
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  /* "/" goes to the search, as the field itself says. */
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById("q")?.focus();
    }
  });

  /* A button that was pressed is not pressed twice; the server would refuse it in words, this saves the reader the words. */
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    setTimeout(() => event.target.querySelectorAll("button").forEach((button) => { button.disabled = true; }), 0);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) document.querySelectorAll("form[method=post] button").forEach((button) => { button.disabled = false; });
  });

  /* A grid of blocks: drag over cells, or press x on one (x again on another takes the span between). The dates of the form follow. */
  const grid = document.querySelector("table[data-pick]");
  const form = document.getElementById("order");
  if (grid && form) pickable(grid, form);

  function pickable(table, order) {
    const cells = [...table.querySelectorAll("td[data-from]")].sort((a, b) => (a.dataset.from < b.dataset.from ? -1 : a.dataset.from > b.dataset.from ? 1 : 0));
    const note = document.getElementById("picked");
    let anchor = null;
    let last = null;
    let dragging = false;
    cells.forEach((cell) => { if (!cell.querySelector("a")) cell.tabIndex = 0; });

    function pick(from, to) {
      const [first, end] = [cells.indexOf(from), cells.indexOf(to)].sort((a, b) => a - b);
      cells.forEach((cell, place) => cell.classList.toggle("picked", place >= first && place <= end));
      const chosen = cells.slice(first, end + 1);
      order.elements.from.value = chosen[0].dataset.from;
      order.elements.to.value = chosen[chosen.length - 1].dataset.to;
      const count = (fits) => chosen.filter((cell) => fits(cell.dataset.look)).length;
      const counts = {
        missing: count((look) => look === "missing"),
        failed: count((look) => look === "failed" || look === "crashed"),
        incomplete: count((look) => !["ok", "unchanged", "suspicious", "due"].includes(look)),
        all: count((look) => look !== "due"),
      };
      order.querySelectorAll("[data-count]").forEach((place) => { place.textContent = counts[place.dataset.count].toLocaleString("en-US"); });
      note.textContent = `${chosen.length} ${chosen.length === 1 ? "block" : "blocks"} picked.`;
    }

    const cellOf = (target) => target instanceof Element ? target.closest("td[data-from]") : null;
    table.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      anchor = last = cellOf(event.target);
      dragging = false;
    });
    table.addEventListener("pointerover", (event) => {
      const cell = cellOf(event.target);
      if (!anchor || !cell || !(event.buttons & 1) || cell === last) return;
      dragging = true;
      last = cell;
      pick(anchor, cell);
    });
    table.addEventListener("dragstart", (event) => event.preventDefault());
    table.addEventListener("click", (event) => {
      const cell = cellOf(event.target);
      if (dragging) event.preventDefault();
      else if (cell && !event.target.closest("a")) pick(event.shiftKey && anchor ? anchor : cell, cell);
      dragging = false;
    });
    table.addEventListener("keydown", (event) => {
      const cell = cellOf(event.target);
      if (event.key !== "x" || !cell) return;
      const from = event.shiftKey || !table.querySelector(".picked") || !anchor ? cell : anchor;
      pick(from, cell);
      anchor = anchor && from === anchor ? null : cell;
    });
  }

  /* uPlot's own dates are American; ours are those of the tables: by the width of a step, with the day or the year below where it changes. */
  const year = "\n{YYYY}";
  const day = "\n{MMM} {D}";
  const step = (seconds, words, newYear, newDay) => [seconds, words, newYear, null, newDay, null, null, null, 1];
  const dates = [step(31536000, "{YYYY}", null, null), step(2419200, "{MMM}", year, null), step(86400, "{MMM} {D}", year, null),
    step(3600, "{HH}:{mm}", `${day} {YYYY}`, day), step(60, "{HH}:{mm}", `${day} {YYYY}`, day), step(1, "{HH}:{mm}:{ss}", `${day} {YYYY}`, day)];

  /* Charts: the numbers stand in a JSON block and once more in a table. Colours come from the stylesheet, so both themes fit. */
  document.querySelectorAll("[data-chart]").forEach((figure) => {
    const source = document.getElementById(figure.dataset.chart);
    if (source && window.uPlot) draw(figure, JSON.parse(source.textContent));
  });

  function colour(name) {
    const probe = document.createElement("span");
    probe.className = `plot__${name}`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  function draw(figure, data) {
    const series = Object.entries(data[figure.dataset.series]);
    const unit = figure.dataset.unit || "";
    const axis = { stroke: colour("ink"), grid: { stroke: colour("rule"), width: 1 }, ticks: { stroke: colour("rule"), width: 1 }, font: "11px system-ui, sans-serif" };
    const words = (plot, value) => (value == null ? "–" : `${value.toLocaleString("en-US")}${unit && ` ${unit}`}`);
    /* what is usual: two lines that are not drawn, and the room between them */
    const band = Object.entries(data.band || {});
    const below = series.length + 1;
    const plot = new uPlot(
      {
        width: Math.max(figure.clientWidth, 280),
        height: 240,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), data.zone),
        axes: [{ ...axis, values: data.days ? dates.slice(0, 3) : dates }, { ...axis, size: 64, values: (chart, ticks) => ticks.map((tick) => tick.toLocaleString("en-US", Math.abs(tick) < 1e6 ? {} : { notation: "compact" })) }],
        scales: { y: { range: (chart, low, high) => [0, Math.max(high, 1) * (data.events ? 1.18 : 1.05)] } },
        series: [
          { value: data.days ? "{YYYY}-{MM}-{DD}" : "{YYYY}-{MM}-{DD} {HH}:{mm}" },
          ...series.map(([label], place) => {
            const stroke = colour("abcde"[place % 5]);
            const dashed = (data.dashed || []).includes(label);
            return { label, stroke, width: 1.5, dash: dashed ? [6, 4] : undefined, spanGaps: !data.gaps, points: { show: !dashed, size: 5, stroke, fill: stroke }, value: words };
          }),
          ...band.map(([label]) => ({ label, stroke: colour("rule"), width: 0, points: { show: false }, value: words })),
        ],
        bands: band.length ? [{ series: [below + 1, below], fill: colour("band") }] : [],
        hooks: { drawAxes: [(chart) => (data.events || []).forEach(([moment, name]) => upright(chart, moment, name))] },
      },
      [data.x, ...series.map(([, values]) => values), ...band.map(([, values]) => values)],
      figure,
    );
    new ResizeObserver(() => plot.setSize({ width: Math.max(figure.clientWidth, 280), height: 240 })).observe(figure);
  }

  /* An event on a chart: an upright line with its number, which the list beside it explains. */
  function upright(chart, moment, name) {
    const x = Math.round(chart.valToPos(moment, "x", true));
    const { left, top, width, height } = chart.bbox;
    if (x < left || x > left + width) return;
    const paper = chart.ctx;
    paper.save();
    paper.strokeStyle = paper.fillStyle = colour("ink");
    paper.setLineDash([2, 3]);
    paper.beginPath();
    paper.moveTo(x, top);
    paper.lineTo(x, top + height);
    paper.stroke();
    paper.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    paper.fillText(name, x + 3, top + 10 * devicePixelRatio);
    paper.restore();
  }
})();
