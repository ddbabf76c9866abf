// Charts over tables: each `[data-chart]` draws the table that its value names, which says the same in words and stays
// below. The table's columns that can be drawn say so with `data-series`; its rows, oldest first or with `data-order="down"`
// newest first, carry `data-mark` (failed, baseline, change), a label and a link.
"use strict";

(() => {
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const HEIGHT = 300;

  const read = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const series = heads.flatMap((head, at) => (head.dataset.series ? [{ at, name: head.textContent.trim(), unit: head.dataset.series }] : []));
    const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.label);
    if (table.dataset.order === "down") rows.reverse();
    const points = rows.map((row) => ({
      label: row.dataset.label,
      link: row.dataset.href ?? null,
      marks: new Set((row.dataset.mark ?? "").split(" ").filter(Boolean)),
      values: series.map(({ at }) => {
        const value = row.cells[at]?.dataset.v;
        return value === undefined || value === "" ? null : Number(value);
      }),
    }));
    return { series, points };
  };

  const marks = (points, values) => (plot) => {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    points.forEach((point, at) => {
      const x = plot.valToPos(at, "x", true);
      if (x < bbox.left - 10 || x > bbox.left + bbox.width + 10) return;
      // A new baseline: a dashed line over the whole height, with a diamond at its head.
      if (point.marks.has("baseline") || point.marks.has("change")) {
        const change = point.marks.has("change");
        ctx.strokeStyle = ctx.fillStyle = token(change ? "--flaky" : "--soft");
        ctx.lineWidth = ratio;
        ctx.setLineDash(change ? [] : [4 * ratio, 4 * ratio]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.setLineDash([]);
        const size = 5 * ratio;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x + size, bbox.top + size);
        ctx.lineTo(x, bbox.top + 2 * size);
        ctx.lineTo(x - size, bbox.top + size);
        ctx.fill();
      }
      // A failure: a cross, so that it is not told by its colour alone.
      if (point.marks.has("failed")) {
        const y = values[at] === null ? bbox.top + bbox.height - 8 * ratio : plot.valToPos(values[at], "y", true);
        const size = 4.5 * ratio;
        ctx.strokeStyle = token("--failed");
        ctx.lineWidth = 2.2 * ratio;
        ctx.beginPath();
        ctx.moveTo(x - size, y - size);
        ctx.lineTo(x + size, y + size);
        ctx.moveTo(x + size, y - size);
        ctx.lineTo(x - size, y + size);
        ctx.stroke();
      }
    });
    ctx.restore();
  };

  const draw = (chart, data, chosen) => {
    const { series, points } = data;
    const values = points.map((point) => point.values[chosen]);
    const plotted = chart.querySelector(".plot");
    plotted.replaceChildren();
    const axis = { stroke: token("--soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 }, font: `12px ${token("--sans")}` };
    const name = (at) => points[at]?.label ?? "";
    const options = {
      width: plotted.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.12] } },
      axes: [
        { ...axis, values: (_, at) => at.map((x) => (Number.isInteger(x) ? name(x).split(" ")[0] : "")), space: 90, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
        { ...axis, size: 62 },
      ],
      series: [
        { label: "Commit", value: (_, x) => (x === null ? "–" : name(x)) },
        {
          label: series[chosen].name,
          value: (_, y) => (y === null ? "–" : `${y} ${series[chosen].unit}`),
          stroke: token("--accent"),
          width: 1.6,
          points: { show: points.length <= 120, size: 5, fill: token("--surface") },
        },
      ],
      cursor: { y: false, drag: { x: true, y: false } },
      hooks: { draw: [marks(points, values)] },
    };
    const plot = new uPlot(options, [points.map((_, at) => at), values], plotted);
    plot.over.addEventListener("click", () => {
      const { idx } = plot.cursor;
      // The end of a drag is a click as well: only one without a selection goes anywhere.
      if (plot.select.width === 0 && idx !== null && points[idx]?.link) location.href = points[idx].link;
    });
    return plot;
  };

  const set = (chart) => {
    const table = document.getElementById(chart.dataset.chart);
    const data = table && read(table);
    if (!data || data.series.length === 0 || data.points.length < 2) return;
    chart.hidden = false;
    let chosen = 0;
    let plot = draw(chart, data, chosen);
    const last = data.points.length - 1;
    const show = (from, to) => {
      const width = Math.min(Math.max(to - from, 2), last);
      const low = Math.min(Math.max(from, 0), last - width);
      plot.setScale("x", { min: low, max: low + width });
    };
    const acts = {
      in: (from, to) => show(from + (to - from) / 4, to - (to - from) / 4),
      out: (from, to) => show(from - (to - from) / 2, to + (to - from) / 2),
      left: (from, to) => show(from - (to - from) / 3, to - (to - from) / 3),
      right: (from, to) => show(from + (to - from) / 3, to + (to - from) / 3),
      all: () => show(0, last),
    };
    chart.addEventListener("click", (event) => {
      const act = event.target.closest("button[data-act]")?.dataset.act;
      if (act) acts[act](plot.scales.x.min, plot.scales.x.max);
    });
    const choice = chart.querySelector("select");
    if (choice) {
      choice.replaceChildren(...data.series.map(({ name, unit }, at) => new Option(unit ? `${name} (${unit})` : name, at)));
      choice.addEventListener("change", () => {
        chosen = Number(choice.value);
        again();
      });
    }
    const again = () => {
      const { min, max } = plot.scales.x;
      plot.destroy();
      plot = draw(chart, data, chosen);
      if (min !== undefined && min !== null) plot.setScale("x", { min, max });
    };
    let width = chart.clientWidth;
    new ResizeObserver(() => {
      if (chart.clientWidth === width) return;
      width = chart.clientWidth;
      plot.setSize({ width: chart.querySelector(".plot").clientWidth, height: HEIGHT });
    }).observe(chart);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  };

  document.querySelectorAll("[data-chart]").forEach(set);
})();
