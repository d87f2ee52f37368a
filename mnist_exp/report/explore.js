// The figures that can be touched: one selection, which they, the tables and the curves share.
// Texts come from users: they reach the page as text nodes, and Vega as data, never as HTML or expressions.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const { runs, keys, split, curves } = facts;
  const count = runs.number.length;
  const all = [...Array(count).keys()];
  const section = document.getElementById("explore");
  const { colours, muted, split_names } = facts;
  const accuracyName = (each) => `${split_names[each]} accuracy, %`;
  const dashes = [[1, 0], [6, 3], [6, 2, 1, 2], [1, 2], [8, 2], [4, 1, 1, 1, 1, 1]];
  const $ = (id) => document.getElementById(id);
  function make(tag, properties, ...inside) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  }
  const known = (list) => list.filter((value) => value !== null);
  const format = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(6)).toString());
  const measured = all.filter((i) => runs.state[i] === "finished" && runs[split][i] !== null);
  const nameOf = (i) => facts.settings[runs.setting[i]] + (seedOf(i) === null ? "" : ` seed=${seedOf(i)}`);
  const figures = {}; // name → {view, fill, brushed: the runs in its brush, or null}
  let clicked = null; // runs of a cell that was clicked

  function seedOf(i) {
    const at = keys.findIndex((key) => key.name === "seed");
    return at < 0 ? null : keys[at].values[i];
  }

  // What an axis can show: a key, a cost, an accuracy, or the order of runs.
  const axes = {};
  keys.forEach((key, at) => { axes[`key ${at}`] = key; });
  for (const [name, title] of [["parameters", "parameters"], ["seconds", facts.clock], ["number", "run, in order"]]) {
    const values = known(runs[name]);
    if (new Set(values).size < 2) continue;
    const wide = name !== "number" && Math.min(...values) > 0 && Math.max(...values) > 4 * Math.min(...values);
    axes[name] = { name: title, scale: wide ? "log" : "linear", order: [], values: runs[name] };
  }
  for (const each of facts.splits) axes[each] = { name: accuracyName(each), scale: "linear", order: [], values: runs[each] };
  const isKey = (id) => id.startsWith("key ");
  const keyIds = Object.keys(axes).filter(isKey);

  // Limits that show good runs apart, as charts/style.py has them.
  function limits(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const best = sorted[sorted.length - 1];
    const median = sorted[Math.floor(sorted.length / 2)];
    const low = Math.max(sorted[0], best - 5 * Math.max(best - median, 0.4));
    const margin = Math.max(0.06 * (best - low), 0.05);
    return [low - margin, best + margin];
  }

  // At most *most* round numbers in a domain: 1, 2, 5 of each decade if the axis is logarithmic.
  function ticks([low, high], scale, most = 6) {
    const steps = (from, to) => {
      const raw = (to - from) / most;
      const unit = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 5, 10].find((m) => m * unit >= raw) * unit;
      const marks = [];
      for (let at = Math.ceil(from / step) * step; at <= to + 1e-9 * step; at += step) marks.push(Number(at.toPrecision(10)));
      return marks;
    };
    if (scale !== "log") return steps(low, high);
    for (const parts of [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 5], [1, 3], [1]]) {
      const marks = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
        for (const m of parts) if (m * 10 ** e >= low * 0.999 && m * 10 ** e <= high * 1.001) marks.push(Number((m * 10 ** e).toPrecision(3)));
      if (marks.length <= most) return marks.length > 2 ? marks : steps(low, high);
    }
    return steps(Math.log10(low), Math.log10(high)).filter(Number.isInteger).map((e) => 10 ** e);
  }

  const short = 'abs(datum.value) >= 1e6 ? format(datum.value / 1e6, "~g") + "M" : abs(datum.value) >= 1e4 ? format(datum.value / 1e3, "~g") + "k" : format(datum.value, "~g")';

  // The encoding of an axis; numbers have a margin, so that no mark lies on the frame.
  function encoding(id, field, domain) {
    const { name, scale, order, values } = axes[id];
    if (scale === "order") {
      const angle = order.join("").length > 40 ? -35 : 0;
      return { field, type: "ordinal", sort: null, scale: { domain: order }, axis: { title: name, labelAngle: field === "x" ? angle : 0, labelLimit: 140 } };
    }
    const numbers = known(values);
    const [low, high] = domain ?? [Math.min(...numbers), Math.max(...numbers)];
    const pad = 0.05 * (high - low) || 0.5;
    const wide = domain ?? (scale === "log" ? [low * (low / high) ** 0.05, high * (high / low) ** 0.05] : [low - pad, high + pad]);
    const typed = order.length > 1 && order.length <= 7 ? [...new Set(numbers)] : null;
    return {
      field, type: "quantitative",
      scale: { type: scale === "log" ? "log" : "linear", domain: wide, nice: false, ...(scale === "log" ? {} : { zero: false }) },
      axis: { title: name, values: typed ?? ticks(wide, scale), labelExpr: short, labelOverlap: "greedy", labelFlush: false },
    };
  }

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--text").trim(), soft = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
    return {
      ink, soft,
      config: {
        background: null, font: "system-ui, sans-serif", view: { stroke: null },
        axis: { labelColor: soft, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 },
        legend: { labelColor: soft, titleColor: ink, labelFontSize: 12, titleFontWeight: 500 },
        text: { color: ink },
      },
    };
  }

  // Where the scheme begins: on a dark page without its dark end, which could not be seen.
  const darkest = () => (matchMedia("(prefers-color-scheme: dark)").matches ? 0.25 : 0);

  const shade = (domain) => ({
    field: "accuracy", type: "quantitative", scale: { scheme: { name: "viridis", extent: [darkest(), 1] }, domain, clamp: true },
    legend: { title: accuracyName(split), orient: "top", gradientLength: 160, gradientThickness: 10, offset: 26, labelExpr: short, values: ticks(domain, "linear", 4) },
  });

  // An image to those who can't see it: the tables have its numbers, and open its runs.
  async function embed(holder, spec, description, options) {
    const common = { width: "container", description, autosize: { type: "fit-x", contains: "padding" } };
    const fixed = { ast: true, actions: false, defaultStyle: false, mode: "vega-lite", config: theme().config }; // ast: no eval
    const { view } = await vegaEmbed(holder, { ...common, ...spec }, { ...fixed, ...options });
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", description);
    [...holder.children].forEach((part) => part.setAttribute("aria-hidden", "true"));
    return view;
  }

  // Draws *spec* in the figure *name*. *fill* gives its data for the chosen runs, *hits* turns a brush into those inside.
  async function draw(name, spec, description, fill, hits, marks = 0) {
    const holder = $(`figure-${name}`).querySelector(".chart");
    figures[name]?.view.finalize();
    delete figures[name]; // until it is there anew, it chooses nothing
    const datasets = { ...spec.datasets, ...fill(new Set(all), false) };
    const view = await embed(holder, { height: 290, ...spec, datasets }, description, { tooltip, renderer: marks > 3000 ? "canvas" : "svg" });
    figures[name] = { view, brushed: null, fill };
    if (hits)
      view.addSignalListener("brush", (_, brush) => {
        figures[name].brushed = brush && Object.keys(brush).length ? hits(brush) : null;
        show();
      });
    view.addEventListener("click", (_, item) => {
      const datum = item?.datum?.datum ?? item?.datum;
      const run = datum?.run ?? item?.mark?.items?.[0]?.datum?.run;
      if (datum?.cell) { clicked = datum.cell; show(); }
      if (run !== undefined) open(run);
    });
    return view;
  }

  // Names the run under the pointer, as text.
  function tooltip(_, event, item, value) {
    const tip = $("tip");
    const run = value === null || value === undefined || value === "" ? undefined : (item?.datum?.datum ?? item?.datum)?.run;
    tip.hidden = run === undefined;
    if (run === undefined) return;
    const cell = item.datum.cell;
    tip.textContent = cell ? item.datum.says : `${nameOf(run)}\n${facts.splits.map((s) => `${split_names[s]} ${format(runs[s][run])} %`).join(", ")}`;
    if (runs.state[run] !== "finished") tip.textContent += `\n${runs.state[run]}`;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
  }

  const inside = (value, range) => value !== null && value !== undefined && (typeof range[0] === "number" && range.length === 2 && typeof value === "number" ? value >= Math.min(...range) && value <= Math.max(...range) : range.includes(value));

  function chosen() {
    let ids = null;
    for (const set of [clicked, ...Object.values(figures).map((figure) => figure.brushed)])
      if (set) ids = ids ? ids.filter((i) => set.includes(i)) : [...set];
    return ids;
  }

  let waiting = false;
  function show() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const ids = chosen();
      const on = new Set(ids ?? all);
      $("chosen").textContent = ids ? `${on.size} of ${count} runs chosen.` : `All ${count} runs.`;
      $("all").hidden = !ids;
      for (const { view, fill } of Object.values(figures)) {
        for (const [data, rows] of Object.entries(fill(on, ids !== null))) view.data(data, rows);
        view.runAsync();
      }
      document.querySelectorAll("tr[data-run]").forEach((row) => { row.hidden = !on.has(Number(row.dataset.run)); });
      const settings = new Set([...on].map((i) => runs.setting[i]));
      document.querySelectorAll("tr[data-setting]").forEach((row) => { row.hidden = ids !== null && !settings.has(Number(row.dataset.setting)); });
    });
  }

  const fade = { condition: { test: "datum.on", value: 0.85 }, value: 0.07 };
  const brush = (encodings) => ({ name: "brush", select: { type: "interval", encodings } });
  const tipped = { field: "run", type: "quantitative" };
  const domain = measured.length ? limits(measured.map((i) => runs[split][i])) : [0, 100];

  async function parallel() {
    const dims = [...keyIds.slice(0, 8), split];
    if (dims.length < 3 || !measured.length) return $("figure-parallel").remove();
    const places = dims.map((id) => {
      const { scale, order, values } = axes[id];
      if (scale === "order") return { at: (v) => (order.length < 2 ? 0.5 : order.indexOf(v) / (order.length - 1)), marks: order.length <= 12 ? order : [] };
      const numbers = id === split ? domain : known(values);
      const low = Math.min(...numbers), high = Math.max(...numbers), f = scale === "log" ? Math.log : (v) => v;
      const typed = id !== split && order.length && order.length <= 7 ? [...new Set(numbers)] : [...new Set([low, ...ticks([low, high], scale, 5), high])];
      return { at: (v) => (f(v) - f(low)) / (f(high) - f(low) || 1), marks: id === split ? ticks([low, high], "linear", 5) : typed };
    });
    const below = measured.filter((i) => runs[split][i] < domain[0]).length;
    const shown = measured.filter((i) => runs[split][i] >= domain[0] && dims.every((id) => axes[id].values[i] !== null));
    const lines = (on) => shown.flatMap((run) => dims.map((id, d) => ({ run, dim: d, y: places[d].at(axes[id].values[run]), accuracy: runs[split][run], on: on.has(run) })));
    const scales = dims.flatMap((id, d) => {
      const labels = places[d].marks.map((mark) => ({ dim: d, y: places[d].at(mark), label: typeof mark === "number" ? compact(mark) : String(mark) })).sort((a, b) => a.y - b.y);
      return labels.filter((each, i) => i === 0 || i === labels.length - 1 ? true : each.y - labels[i - 1].y > 0.06 && labels[labels.length - 1].y - each.y > 0.06);
    });
    const x = { field: "dim", type: "ordinal", scale: { type: "point", padding: 0.35 }, axis: null };
    const y = { field: "y", type: "quantitative", scale: { domain: [-0.03, 1.03], nice: false }, axis: null };
    const heads = dims.map((id, d) => ({ dim: d, y: 1.03, label: id === split ? split_names[split] : brief(axes[id].name) }));
    const names = { labels: dims.length > 4 ? 90 : 150 };
    note("parallel", below ? `${below} of the finished runs lie below ${format(Number(domain[0].toFixed(2)))} %, and are not drawn.` : "");
    await draw("parallel", {
      height: 330, datasets: { scales, heads },
      layer: [
        { data: { name: "heads" }, mark: { type: "rule", opacity: 0.5, color: theme().soft }, encoding: { x, y: { ...y, datum: 0, field: undefined }, y2: { datum: 1 } } },
        { data: { name: "runs" }, params: [brush(["x", "y"])], mark: { type: "line", strokeWidth: 1.6, tooltip: true }, encoding: { x, y, detail: { field: "run" }, tooltip: tipped, color: shade(domain), opacity: fade } },
        { data: { name: "scales" }, mark: { type: "text", align: "left", dx: 5, fontSize: 11, stroke: paper(), strokeWidth: 6, strokeJoin: "round", limit: names.labels }, encoding: { x, y, text: { field: "label" } } },
        { data: { name: "scales" }, mark: { type: "text", align: "left", dx: 5, fontSize: 11, color: theme().ink, limit: names.labels }, encoding: { x, y, text: { field: "label" } } },
        { data: { name: "heads" }, mark: { type: "text", dy: -10, fontSize: 12, fontWeight: 500, color: theme().ink, limit: names.labels }, encoding: { x, y, text: { field: "label" } } },
      ],
    }, `Parallel coordinates of ${shown.length} runs`, (on) => ({ runs: lines(on) }), ({ dim, y: range }) => all.filter((i) => shown.includes(i) && dim.every((d) => inside(places[d].at(axes[dims[d]].values[i]), range))), shown.length * dims.length);
  }

  // The last part of a key, where no other has the same.
  function brief(name) {
    const last = name.split(".").pop();
    return keys.filter((key) => key.name.split(".").pop() === last).length > 1 ? name : last;
  }

  const paper = () => getComputedStyle(document.documentElement).getPropertyValue("--page").trim();
  const compact = (v) => (Math.abs(v) >= 1e6 ? `${format(v / 1e6)}M` : Math.abs(v) >= 1e4 ? `${format(v / 1e3)}k` : Number(v.toPrecision(3)).toString());

  const average = (list) => list.reduce((p, q) => p + q, 0) / list.length;

  function grouped(ids, keyOf) {
    const groups = new Map();
    for (const i of ids) groups.set(keyOf(i), [...(groups.get(keyOf(i)) ?? []), i]);
    return groups;
  }

  // Two keys: a map of means where they make a grid, else a point for each run.
  async function pair() {
    const [a, b] = [$("pair-x").value, $("pair-y").value];
    const has = all.filter((i) => axes[a].values[i] !== null && axes[b].values[i] !== null);
    const put = (i) => [axes[a].values[i], axes[b].values[i]];
    const cells = new Set(has.map((i) => JSON.stringify(put(i)))).size;
    const [nx, ny] = [a, b].map((id) => new Set(known(axes[id].values)).size);
    const grid = nx <= 12 && ny <= 12 && cells >= 0.5 * nx * ny;
    $("figure-pair").querySelector(".what").textContent = grid ? "Mean of the runs of two settings" : "Each run, by two settings";
    if (!grid) {
      const dots = (on) => has.filter((i) => measured.includes(i)).map((run) => ({ run, x: put(run)[0], y: put(run)[1], accuracy: runs[split][run], on: on.has(run) }));
      await draw("pair", {
        data: { name: "runs" }, params: [brush(["x", "y"])],
        mark: { type: "point", filled: true, size: 70, stroke: paper(), strokeWidth: 0.6 },
        encoding: { x: encoding(a, "x"), y: encoding(b, "y"), color: shade(domain), opacity: fade, tooltip: tipped },
      }, `${axes[a].name} and ${axes[b].name} of each run, coloured by accuracy`, (on) => ({ runs: dots(on) }), (range) => has.filter((i) => inside(put(i)[0], range.x) && inside(put(i)[1], range.y)), has.length);
      return show();
    }
    const texts = (id) => [...new Set(known(axes[id].values))].sort((p, q) => (axes[id].scale === "order" ? axes[id].order.indexOf(p) - axes[id].order.indexOf(q) : p - q)).map(String);
    const fill = (on) => {
      const rows = [...grouped(has.filter((i) => on.has(i)), (i) => JSON.stringify(put(i))).values()].map((ids) => {
        const done = ids.filter((i) => measured.includes(i)).sort((p, q) => runs[split][q] - runs[split][p]);
        const lost = ids.filter((i) => ["failed", "killed", "damaged"].includes(runs.state[i])).length;
        const mean = done.length ? average(done.map((i) => runs[split][i])) : null;
        const [x, y] = put(ids[0]).map(String);
        const says = `${axes[a].name}=${x} ${axes[b].name}=${y}\n${mean === null ? "" : `mean ${mean.toFixed(2)} % of ${done.length} runs`}${lost ? `, ${lost} failed` : ""}`;
        const shown = darkest() + (1 - darkest()) * (mean - domain[0]) / (domain[1] - domain[0]);
        const ink = mean === null ? "" : shown > 0.55 ? "dark" : "light";
        return { x, y, accuracy: mean, cell: ids, run: done[Math.floor((done.length - 1) / 2)] ?? ids[0], label: [mean === null ? "" : mean.toFixed(2), lost ? `${lost} failed` : ""].filter(Boolean).join(", "), says, ink };
      });
      return { cells: rows };
    };
    const axis = (id, field, sort) => ({ field, type: "ordinal", sort: null, scale: { domain: sort, paddingInner: 0.04 }, axis: { title: axes[id].name, labelAngle: field === "x" && sort.join("").length > 45 ? -35 : 0, grid: false, domain: false, ticks: false, labelLimit: 140 } });
    const x = axis(a, "x", texts(a)), y = axis(b, "y", texts(b).reverse());
    await draw("pair", {
      data: { name: "cells" },
      layer: [
        { params: [brush(["x", "y"])], mark: { type: "rect" }, encoding: { x, y, color: { ...shade(domain), legend: null }, tooltip: tipped, stroke: { value: theme().soft }, strokeWidth: { condition: { test: "datum.accuracy === null", value: 1 }, value: 0 } } },
        { mark: { type: "text", fontSize: nx > 7 ? 10 : 12 }, encoding: { x, y, text: { field: "label" }, color: { condition: [{ test: "datum.ink == 'dark'", value: "#000" }, { test: "datum.ink == 'light'", value: "#fff" }], value: theme().ink }, tooltip: tipped } },
      ],
    }, `Mean accuracy over ${axes[a].name} and ${axes[b].name}`, fill, (range) => has.filter((i) => inside(String(put(i)[0]), range.x ?? []) && inside(String(put(i)[1]), range.y ?? [])));
    show();
  }

  // Accuracy against anything.
  async function against() {
    const [a, b] = [$("against-x").value, $("against-y").value];
    const whole = $("against-whole").checked;
    const drawn = all.filter((i) => axes[a].values[i] !== null && axes[b].values[i] !== null && ["finished", "pruned"].includes(runs.state[i]));
    const accuracy = facts.splits.includes(b);
    const values = drawn.map((i) => axes[b].values[i]);
    const done = drawn.filter((i) => runs.state[i] === "finished").map((i) => axes[b].values[i]);
    const bounds = accuracy && done.length && !whole ? limits(done) : null;
    const outside = bounds ? values.filter((v) => v < bounds[0]).length : 0;
    note("against", outside ? `${outside} of ${drawn.length} runs lie below ${bounds[0].toFixed(2)} %, and are drawn with the whole range only.` : "");
    const shown = drawn.filter((i) => !bounds || axes[b].values[i] >= bounds[0]);
    const dots = (on) => shown.map((run) => ({ run, x: axes[a].values[run], y: axes[b].values[run], pruned: runs.state[run] === "pruned", accuracy: runs[split][run], on: on.has(run) }));
    const tops = (on) => {
      if (axes[a].scale !== "order" && axes[a].order.length < 2) return [];
      const groups = grouped(drawn.filter((i) => on.has(i) && runs.state[i] === "finished"), (i) => axes[a].values[i]);
      return [...groups].map(([x, ids]) => ({ x, y: average(ids.map((i) => axes[b].values[i])) })).filter(({ y }) => !bounds || y >= bounds[0]);
    };
    const x = encoding(a, "x"), y = encoding(b, "y", bounds);
    $("figure-against").querySelector("figcaption").textContent = `Each point is a run${tops(new Set(all)).length ? ", each bar a mean" : ""}`;
    await draw("against", {
      layer: [
        { data: { name: "means" }, mark: { type: "tick", thickness: 2.5, size: 34, color: colours[1], orient: "horizontal" }, encoding: { x, y } },
        { data: { name: "runs" }, params: [brush(["x", "y"])], mark: { type: "point", size: 55, strokeWidth: 1.4, color: colours[0] }, encoding: { x, y, opacity: fade, fill: { condition: { test: "datum.pruned", value: "transparent" }, value: colours[0] }, tooltip: tipped } },
      ],
    }, `${axes[b].name} against ${axes[a].name}, a point for each run`, (on) => ({ runs: dots(on), means: tops(on) }), (range) => shown.filter((i) => inside(axes[a].values[i], range.x) && inside(axes[b].values[i], range.y)), shown.length);
    show();
  }

  function note(name, text) {
    $(`figure-${name}`).querySelector(".note").textContent = text;
  }

  function curveRows(ids, metric) {
    return ids.flatMap((run) => (curves[run]?.[metric] ?? []).map((y, at) => ({ run, epoch: curves[run].epoch[at], y })).filter(({ y }) => y !== null && (y > 0 || !metric.endsWith("loss"))));
  }

  function curveAxis(rows, metric, domain) {
    const loss = metric.endsWith("loss"), [which] = metric.split("/");
    return { field: "y", type: "quantitative", scale: { type: loss ? "log" : "linear", domain, nice: false, ...(loss ? {} : { zero: false }) }, axis: { title: loss ? `${split_names[which]} loss` : accuracyName(which), values: ticks(domain, loss ? "log" : "linear"), labelExpr: short } };
  }

  const epochAxis = (rows) => {
    const last = rows.reduce((most, row) => Math.max(most, row.epoch), 2);
    const values = ticks([1, last], "linear", 8).filter(Number.isInteger);
    return { field: "epoch", type: "quantitative", scale: { domain: [1, last], nice: false, zero: false, padding: 6 }, axis: { title: "epoch", values, format: "d", grid: false } };
  };

  // Limits of curves that good runs fill: one that diverged leaves the frame.
  function reach(rows, metric) {
    const values = rows.map((row) => row.y);
    if (!values.length) return [0.1, 1];
    let [low, high] = [values.reduce((p, q) => Math.min(p, q)), values.reduce((p, q) => Math.max(p, q))];
    if (metric.endsWith("loss")) return [low / 1.15, high * 1.15];
    const margin = 0.04 * (high - low) + 0.05;
    return [low - margin, high + margin];
  }

  async function follow() {
    const metric = $("curves-what").value;
    const drawn = Object.keys(curves).map(Number).filter((i) => curves[i][metric]);
    const leads = [...new Set(drawn.map((i) => runs.setting[i]))].sort((p, q) => p - q).slice(0, facts.leading);
    const good = drawn.filter((i) => leads.includes(runs.setting[i]) && runs.state[i] !== "failed");
    const rows = (on, filtered) => curveRows(drawn.filter((i) => on.has(i) || !filtered), metric).map((row) => ({ ...row, lead: leads.indexOf(runs.setting[row.run]) }));
    const first = rows(new Set(all), false);
    const bounds = reach(first.filter((row) => good.includes(row.run)), metric);
    const colour = { field: "lead", type: "nominal", legend: null, scale: { domain: [-1, ...leads.keys()], range: [muted, ...colours] } };
    const line = { x: epochAxis(first), y: curveAxis(first, metric, bounds), detail: { field: "run" } };
    await draw("curves", {
      data: { name: "runs" },
      layer: [
        { transform: [{ filter: "datum.lead < 0" }], mark: { type: "line", strokeWidth: 1, opacity: 0.45, clip: true }, encoding: { ...line, color: { value: muted } } },
        { transform: [{ filter: "datum.lead >= 0" }], mark: { type: "line", strokeWidth: 1.8, clip: true, point: line.x.scale.domain[1] <= 3 }, encoding: { ...line, color: colour, strokeDash: { field: "lead", type: "nominal", legend: null, scale: { domain: [...leads.keys()], range: dashes } } } },
        { mark: { type: "line", strokeWidth: 11, opacity: 0.001, clip: true }, encoding: { ...line, tooltip: tipped } },
      ],
    }, `Learning curves of ${drawn.length} runs`, (on, filtered) => ({ runs: rows(on, filtered) }), null, first.length);
    const legend = $("curves-legend");
    legend.replaceChildren(...leads.map((setting, at) => {
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = `repeating-linear-gradient(90deg, ${stripes(dashes[at], colours[at])})`;
      return make("li", {}, swatch, facts.settings[setting]);
    }));
    if (new Set(drawn.map((i) => runs.setting[i])).size > leads.length) legend.append(make("li", {}, "others grey"));
    show();
  }

  function stripes(dash, colour) {
    if (dash[1] === 0) return `${colour} 0 100%`;
    let at = 0;
    return dash.map((length, i) => `${i % 2 ? "transparent" : colour} ${at}px ${(at += length * 1.5)}px`).join(", ");
  }

  // What there is about one run, with its command, link and curves.
  async function open(run) {
    const dialog = $("run");
    const fact = (term, text) => make("div", {}, make("dt", {}, term), make("dd", {}, text));
    $("run-title").textContent = nameOf(run);
    $("run-facts").replaceChildren(
      ...facts.splits.map((each) => fact(`${split_names[each]} accuracy`, runs[each][run] === null ? "–" : `${runs[each][run].toFixed(2)} %`)),
      fact(`run ${runs.number[run]}`, runs.state[run]), fact("epochs", runs.epoch[run]), fact("time", runs.time[run]),
      ...(runs.reason[run] ? [fact("why", runs.reason[run])] : []),
    );
    $("run-command").textContent = runs.command[run];
    const link = $("run-link");
    link.hidden = !runs.link[run];
    if (/^https?:/.test(runs.link[run])) link.href = runs.link[run];
    $("run-curves").hidden = !curves[run];
    if (!dialog.open) dialog.showModal();
    if (!curves[run]) return;
    for (const [holder, what] of [["run-loss", "loss"], ["run-accuracy", "accuracy"]]) {
      const rows = ["val", "train", "test"].flatMap((s) => curveRows([run], `${s}/${what}`).map((row) => ({ ...row, split: split_names[s] })));
      const metric = `${split}/${what}`;
      const y = curveAxis(rows, metric, reach(rows, metric));
      y.axis.title = what === "loss" ? "loss" : "accuracy, %";
      await embed($(holder), {
        height: 190, data: { values: rows }, mark: { type: "line", point: rows.length < 100 },
        encoding: { x: epochAxis(rows), y, color: { field: "split", type: "nominal", scale: { domain: ["validation", "training", "test"], range: ["val", "train", "test"].map((each) => facts.split_colours[each]) }, legend: { title: null, orient: "top" } }, strokeDash: { field: "split", type: "nominal", legend: null } },
      }, `${what} of this run over epochs`, { renderer: "svg", tooltip: false });
    }
  }

  // Rows of tables open their run: by keyboard, too.
  function wireTables() {
    document.querySelectorAll("td[data-open]").forEach((cell) => {
      const button = make("button", { type: "button", className: "open" }, cell.textContent.trim());
      button.setAttribute("aria-label", `Run ${button.textContent}: command and curves`);
      button.addEventListener("click", () => open(Number(cell.dataset.open)));
      cell.replaceChildren(button);
    });
  }

  function options(id, ids, value) {
    const select = $(id);
    select.replaceChildren(...ids.map((each) => make("option", { value: each }, axes[each]?.name ?? each)));
    select.value = ids.includes(value) ? value : ids[0];
  }

  async function drawAll() {
    clicked = null;
    Object.values(figures).forEach((figure) => { figure.brushed = null; });
    if ($("figure-parallel")) await parallel();
    if ($("figure-pair")) await pair();
    if ($("figure-against")) await against();
    if ($("figure-curves")) await follow();
    show();
  }

  async function start() {
    document.documentElement.classList.add("touched");
    section.hidden = false;
    wireTables();
    if (keyIds.length > 1 && measured.length) {
      const swept = keyIds.filter((id) => axes[id].name !== "seed");
      const [first, second] = swept.length > 1 ? swept : keyIds;
      options("pair-x", keyIds, first);
      options("pair-y", keyIds, second);
      for (const id of ["pair-x", "pair-y"]) $(id).addEventListener("change", pair);
    } else $("figure-pair").remove();
    if (measured.length) {
      const ids = Object.keys(axes);
      const costs = ids.filter((id) => !facts.splits.includes(id) || id !== split);
      options("against-x", costs, facts.search ? costs[0] : costs.find((id) => id === "parameters") ?? costs[0]);
      options("against-y", facts.splits, split);
      for (const id of ["against-x", "against-y", "against-whole"]) $(id).addEventListener("change", against);
    } else $("figure-against").remove();
    const metrics = ["val/loss", "val/accuracy", "train/loss", "train/accuracy", "test/loss", "test/accuracy"].filter((m) => Object.values(curves).some((curve) => curve[m]));
    if (metrics.length) {
      options("curves-what", metrics, metrics[0]);
      for (const each of $("curves-what").options) each.textContent = each.value.replace(/(\w+)\//, (_, which) => `${split_names[which]} `);
      $("curves-what").addEventListener("change", follow);
    } else $("figure-curves").remove();
    $("all").addEventListener("click", drawAll);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    document.addEventListener("scroll", () => { $("tip").hidden = true; }, { passive: true });
    return drawAll();
  }

  // Where it fails, the pictures that do without are shown.
  start().catch((error) => {
    section.hidden = true;
    document.documentElement.classList.remove("touched");
    throw error;
  }).finally(() => document.documentElement.classList.add("drawn"));
})();
