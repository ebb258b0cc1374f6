"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const methods = new Map(data.methods.map((method) => [method.id, method]));
const COSTS = Object.keys(data.quantities).filter((key) => data.quantities[key].cost);
const AXES = { cost: COSTS, sparsity: ["weight_sparsity", "compression", "effective_sparsity"],
  equal: ["macs_effective", "macs", "disk_bytes"] };
const DASHES = { structured: "", unstructured: "7 3", control: "2 3" };
const LOGARITHMIC = new Set(["compression", "macs", "macs_effective", "disk_bytes", "parameters"]);

// Elements are made one by one and texts set as texts: nothing in the data can become markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}
function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// --- State: settings that differ from the defaults are in the URL, so a view can be shared. ---
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const chosen = (key, fallback) => state.get(key) ?? fallback;
const is = (key, fallback) => chosen(key, fallback ? "1" : "0") === "1";
const hidden = () => new Set((state.get("hide") ?? "").split("|").filter(Boolean));
function choose(key, value, fallback) {
  if (String(value) === String(fallback)) state.delete(key); else state.set(key, value);
  remember();
  redraw();
}
function remember() {
  history.replaceState(null, "", `#${state}`);
}

// --- Numbers ---
function written(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text = size >= 1e6 || (size > 0 && size < 1e-3) ? value.toExponential(2)
    : String(Number(value.toPrecision(4)));
  if (size >= 1e4 && size < 1e6) text = Math.round(value).toLocaleString("en");
  return text.replace("-", "−");
}
function withInterval([mean, low, high]) {
  return low === null ? written(mean) : `${written(mean)} [${written(low)}, ${written(high)}]`;
}
// The width of a text, and its lines if it does not fit into one.
const measuring = document.createElement("canvas").getContext("2d");
function widthOf(text, size = 12, weight = "") {
  measuring.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  return measuring.measureText(text).width;
}
function inLines(text, room, size = 12, weight = "") {
  const lines = [""];
  const fits = (line) => widthOf(line, size, weight) <= room;
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1), longer = last ? `${last} ${word}` : word;
    if (fits(longer)) { lines[lines.length - 1] = longer; continue; }
    if (last) lines.push("");
    for (const letter of word) {
      if (lines.at(-1) && !fits(lines.at(-1) + letter)) lines.push("");
      lines[lines.length - 1] += letter;
    }
  }
  return lines;
}
// A text of several lines; y is the position of the first one.
function paragraph(lines, x, y, leading, attributes = {}) {
  return shape("text", { x, y, ...attributes }, ...lines.map((line, index) => shape("tspan", { x, dy: index ? leading : 0 }, line)));
}
const percent = (fraction) => `${Number((100 * fraction).toPrecision(6))} %`;

function scale(low, high, from, to, logarithmic) {
  const of = logarithmic ? Math.log10 : (value) => value;
  const [first, last] = [of(low), of(high)];
  return (value) => from + ((of(value) - first) / (last - first || 1)) * (to - from);
}
function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n += 1) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}
function logTicks(low, high, count) {
  const all = (factors) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const factor of factors) ticks.push(factor * 10 ** power);
    return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  };
  const fitting = [[1, 2, 5], [1, 3], [1]].map(all).find((ticks) => ticks.length <= count && ticks.length > 1);
  return fitting ?? (all([1, 2, 5]).length < 2 ? linearTicks(low, high, count) : all([1]).filter((_, i, { length }) => i % Math.ceil(length / count) === 0));
}
// The range of the means, extended to the ends of intervals, but by at most half of the means' own
// range: an interval over two seeds may be so wide that nothing else would be visible.
function range(means, ends, logarithmic) {
  const [of, back] = logarithmic ? [Math.log10, (value) => 10 ** value] : [(value) => value, (value) => value];
  const far = ends.filter((end) => !logarithmic || end > 0).map(of);
  const [least, most] = [Math.min(...means.map(of)), Math.max(...means.map(of))];
  const reach = (most - least) / 2 || Infinity;
  let low = Math.max(Math.min(least, ...far), least - reach);
  const high = Math.min(Math.max(most, ...far), most + reach);
  if (!logarithmic && least >= 0) low = Math.max(low, 0);
  const margin = (high - low) * 0.06 || (logarithmic ? 0.3 : Math.abs(high) * 0.05 || 1);
  return [back(low - margin), back(high + margin)];
}
// An axis may have a fixed start and a largest possible value.
function limited([low, high], axis, means) {
  return [axis.from ?? low, axis.most !== undefined && axis.most !== null && Math.max(...means) <= axis.most ? Math.min(high, axis.most) : high];
}
// The height of a curve at an x between its points; null outside its ends.
function heightAt(points, at, atX, atY) {
  for (let index = 0; index < points.length; index += 1) {
    const [before, after] = [points[Math.max(index - 1, 0)], points[index]];
    if (at > after.x[0] || at < before.x[0]) continue;
    const [x0, x1, y0, y1] = [atX(before.x[0]), atX(after.x[0]), atY(before.y[0]), atY(after.y[0])];
    return x1 > x0 ? y0 + ((atX(at) - x0) / (x1 - x0)) * (y1 - y0) : y1;
  }
  return null;
}

// --- Looks: one colour and marker for each method, in every figure ---
function colour(id) {
  const method = methods.get(id);
  return method.colour === null ? "var(--faint)" : `var(--colour-${method.colour})`;
}
function markerPath(kind, x, y, size) {
  const points = (list) => `M${list.map(([dx, dy]) => `${(x + dx * size).toFixed(1)} ${(y + dy * size).toFixed(1)}`).join("L")}Z`;
  return [
    () => `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0Z`,
    () => points([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
    () => points([[0, -1.15], [1.1, 0.85], [-1.1, 0.85]]),
    () => points([[0, -1.3], [1.15, 0], [0, 1.3], [-1.15, 0]]),
    () => points([[0, 1.15], [1.1, -0.85], [-1.1, -0.85]]),
    () => points([[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]]),
  ][kind]();
}
function mark(id, x, y, size = 5, hollow = false) {
  const method = methods.get(id);
  const look = { style: hollow ? `fill:none;stroke:${colour(id)}` : `${method.kind === "unstructured" ? "stroke" : "fill"}:${colour(id)}` };
  return shape("g", { class: method.kind === "unstructured" ? "open" : "full" },
    shape("path", { class: "mark", d: markerPath(method.marker, x, y, size), ...look }));
}

// --- One chart: axes, a reference, lines with bands, points with bars ---
function plot(host, { series, x, y, dense = null, front = [], stamp = null, label, bars = true }) {
  host.replaceChildren();
  const points = series.flatMap((each) => each.points);
  const width = Math.max(host.clientWidth, 260);
  if (!points.length) {
    host.append(shape("svg", { viewBox: `0 0 ${width} 60`, role: "img", "aria-label": `${label}: nothing to show` },
      shape("text", { x: 4, y: 34, class: "empty" }, "No run has both quantities, or all are hidden.")));
    return;
  }
  const stamped = stamp ? inLines(stamp, width - 70, 10.5, "600") : [];
  const below = inLines(`${x.title}${x.log ? ", log" : ""}`, width - 74);
  const frame = Math.round(Math.min(Math.max(width * 0.62, 230), 380));
  const beside = inLines(y.title, frame - 60);
  const head = stamped.length * 13;
  const height = frame + head + (below.length - 1) * 15;
  const place = { left: 58 + (beside.length - 1) * 15, right: width - 12, top: 12 + head, bottom: frame + head - 44 };
  const xs = points.map((point) => point.x), ys = [...points.map((point) => point.y), ...(dense ? [dense] : [])];
  const means = (triples) => triples.map((triple) => triple[0]);
  const ends = (triples) => (bars ? triples.flatMap((triple) => triple.slice(1)).filter((end) => end !== null) : []);
  const logX = x.log && Math.min(...means(xs)) > 0, logY = y.log && Math.min(...means(ys)) > 0;
  const [x0, x1] = limited(range([...means(xs), ...series.flatMap((each) => each.marks ?? [])], ends(xs), logX), x, means(xs));
  const [y0, y1] = range(means(ys), ends(ys), logY);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const [acrossX, acrossY] = [scale(x0, x1, place.left, place.right, logX), scale(y0, y1, place.bottom, place.top, logY)];
  const atX = (value) => acrossX(within(value, x0, x1)), atY = (value) => acrossY(within(value, y0, y1));
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  for (const tick of (logY ? logTicks : linearTicks)(y0, y1, height / 55))
    drawing.append(shape("line", { class: "grid", x1: place.left, x2: place.right, y1: atY(tick), y2: atY(tick) }),
      shape("text", { x: place.left - 7, y: atY(tick) + 4, "text-anchor": "end", class: "faint" }, written(tick)));
  for (const tick of (logX ? logTicks : linearTicks)(x0, x1, width / 85))
    drawing.append(shape("line", { class: "grid", x1: atX(tick), x2: atX(tick), y1: place.top, y2: place.bottom }),
      shape("text", { x: atX(tick), y: place.bottom + 17, "text-anchor": "middle", class: "faint" }, written(tick)));
  const dashed = (axis) => `axis${axis.theoretical ? " theoretical" : ""}`;
  drawing.append(shape("line", { class: dashed(x), x1: place.left, x2: place.right, y1: place.bottom, y2: place.bottom }),
    shape("line", { class: dashed(y), x1: place.left, x2: place.left, y1: place.top, y2: place.bottom }),
    paragraph(logX ? below : inLines(x.title, width - 74), (place.left + place.right) / 2, place.bottom + 38, 15, { "text-anchor": "middle", class: x.theoretical ? "theoretical" : "" }),
    paragraph(beside, 0, 0, 15, { transform: `translate(13 ${(place.top + place.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: y.theoretical ? "theoretical" : "" }));
  if (stamp) drawing.append(paragraph(stamped, place.left, 14, 13, { class: "stamp-text" }));
  if (dense) {
    if (bars && dense[1] !== null) drawing.append(shape("rect", { class: "dense-band", x: place.left, width: place.right - place.left, y: atY(dense[2]), height: Math.max(atY(dense[1]) - atY(dense[2]), 0) }));
    drawing.append(shape("line", { class: "dense", x1: place.left, x2: place.right, y1: atY(dense[0]), y2: atY(dense[0]) }),
      shape("text", { x: place.right - 3, y: atY(dense[0]) - 4, "text-anchor": "end", class: "faint" }, "dense"));
  }
  const stacked = new Map();
  const path = (list) => list.map(([px, py], index) => `${index ? "L" : "M"}${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`).join("");
  for (const each of series.filter((one) => one.line)) {
    const sure = each.points.filter((point) => point.y[1] !== null);
    if (bars && sure.length > 1) drawing.append(shape("path", { class: "band", style: `fill:${colour(each.method)}`,
      d: `${path(sure.map((p) => [p.x[0], p.y[2]]))}${path(sure.map((p) => [p.x[0], p.y[1]]).reverse()).replace("M", "L")}Z` }));
    drawing.append(shape("path", { class: "line", style: `stroke:${colour(each.method)}`, "stroke-dasharray": each.dash ?? "", d: path(each.points.map((p) => [p.x[0], p.y[0]])) }));
    for (const at of each.marks ?? []) {
      let py = heightAt(each.points, at, atX, atY);
      if (py === null) {
        // There is no curve there: the diamonds stand on the axis, one above the other.
        stacked.set(at, (stacked.get(at) ?? -1) + 1);
        py = place.bottom - 5 - 11 * stacked.get(at);
      }
      drawing.append(shape("path", { d: markerPath(3, atX(at), py, 5), "data-method": each.method, "data-epoch": at, style: `fill:${colour(each.method)};stroke:var(--ink)`, class: "moment" },
        shape("title", {}, `${methods.get(each.method).title} pruned after ${written(at)} epochs`)));
    }
  }
  if (front.length > 1) {
    const steps = front.map(([px, py], index) => (index ? `H${atX(px).toFixed(1)}V${atY(py).toFixed(1)}` : `M${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`)).join("");
    drawing.append(shape("path", { class: "front", d: steps }));
  }
  for (const each of series.filter((one) => !one.bare)) for (const point of each.points) {
    const [px, py] = [atX(point.x[0]), atY(point.y[0])];
    const group = shape("g", { class: `point${point.dominated ? " dominated" : ""}${point.estimated ? " estimated" : ""}${point.disturbed ? " disturbed" : ""}`,
      role: "button", "aria-label": point.text }, shape("title", {}, point.text));
    if (bars && !each.line) for (const [triple, dimension] of [[point.y, "y"], [point.x, "x"]]) if (triple[1] !== null && triple[2] > triple[1]) {
      const ends = dimension === "y" ? { x1: px, x2: px, y1: atY(triple[1]), y2: atY(triple[2]) }
        : { y1: py, y2: py, x1: atX(triple[1]), x2: atX(triple[2]) };
      group.append(shape("line", { class: "bar", style: `stroke:${colour(each.method)}`, ...ends }));
    }
    group.append(shape("circle", { class: "halo", cx: px, cy: py, r: 9 }), mark(each.method, px, py, 5, point.disturbed));
    if (point.disturbed) group.append(shape("text", { x: px + 6, y: py - 1, class: "asterisk" }, "*"));
    if (point.bad) group.append(shape("path", { class: "cross", d: `M${px - 7} ${py - 7}L${px + 7} ${py + 7}M${px + 7} ${py - 7}L${px - 7} ${py + 7}` }));
    const open = () => showRuns(point.runs, point.text);
    group.addEventListener("click", open);
    group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
    drawing.append(group);
  }
  oneStop([...drawing.querySelectorAll("g.point")]);
  host.append(drawing);
}
// The points of a chart are one stop of the tab key; the arrows go from point to point.
function oneStop(points) {
  points.forEach((point, index) => {
    point.setAttribute("tabindex", index ? -1 : 0);
    point.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
      if (!step) return;
      const next = points[(index + step + points.length) % points.length];
      point.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}

// --- What the charts of a task show ---
const sectionOf = (figure) => figure.closest("[data-section]").dataset.section;
const visible = (section) => section.groups.filter((group) => !hidden().has(group.method));

function scatter(figure, kind) {
  const slug = sectionOf(figure), section = data.sections[slug], relative = is("relative", false);
  const isRatio = relative && kind !== "sparsity";
  const table = (group) => (relative ? group.relative : group.values);
  const abscissa = (group) => (isRatio ? group.relative : group.values);
  const keys = AXES[kind].filter((key) => section.groups.some((group) => group.values[key]));
  const drawable = section.groups.some((group) => (kind === "cost" || group.kind !== "dense") && keys.some((each) => group.values[each])
    && Object.keys(section.qualities).some((each) => group.values[each]));
  if (!drawable) { figure.hidden = true; return; }
  const key = chosen(`${slug}.${kind}`, keys[0]), quality = chosen(`${slug}.y`, Object.keys(section.qualities)[0]);
  const quantity = data.quantities[key] ?? data.quantities[keys[0]];
  const logarithmic = is(`${slug}.${kind}.log`, LOGARITHMIC.has(key)), logY = is(`${slug}.logy`, false);
  controls(figure, [
    select("of", `${slug}.y`, Object.entries(section.qualities), quality),
    select("against", `${slug}.${kind}`, keys.map((each) => [each, data.quantities[each].title]), key, keys[0]),
    check("log x", `${slug}.${kind}.log`, logarithmic, LOGARITHMIC.has(key)),
    check("log y", `${slug}.logy`, logY, false),
    element("span", { class: `badge${quantity.theoretical ? " theoretical" : ""}` }, quantity.theoretical ? "theoretical" : "measured"),
  ]);
  const lined = kind !== "cost";
  const usable = visible(section).filter((group) => table(group)[quality] && abscissa(group)[key] && (kind === "cost" || group.kind !== "dense"));
  const better = (a, b) => (section.higher ? a > b : a < b);
  const estimated = usable.some((group) => group.estimated.includes(key));
  const at = (group) => [abscissa(group)[key][0], table(group)[quality][0]];
  const able = usable.filter((group) => !group.disturbed.includes(key));
  const beaten = (group) => able.some((other) => {
    const [[ox, oy], [gx, gy]] = [at(other), at(group)];
    return other !== group && ox <= gx && !better(gy, oy) && (ox < gx || better(oy, gy));
  });
  const ranked = kind === "cost" && !estimated;
  const front = ranked ? able.filter((group) => !beaten(group)).sort((a, b) => at(a)[0] - at(b)[0]) : [];
  const byMethod = Map.groupBy ? Map.groupBy(usable, (group) => group.method) : usable.reduce((map, group) => map.set(group.method, [...(map.get(group.method) ?? []), group]), new Map());
  const series = [...byMethod].map(([method, groups]) => ({
    method, line: lined, dash: kind === "equal" ? DASHES[methods.get(method).kind] ?? "" : "",
    points: groups.map((group) => ({
      x: abscissa(group)[key], y: table(group)[quality], runs: group.runs, bad: group.status !== "done",
      dominated: ranked && able.includes(group) && !front.includes(group), estimated: group.estimated.includes(key),
      disturbed: group.disturbed.includes(key),
      text: `${named(group)}: ${section.qualities[quality]} ${withInterval(table(group)[quality])}, ${quantity.title} ${withInterval(abscissa(group)[key])}${group.disturbed.includes(key) ? "; disturbed by other programs, not ranked" : ""}${group.remark ? `; ${group.remark}` : ""}`,
    })).sort((a, b) => a.x[0] - b.x[0]),
  }));
  const reference = section.groups.find((group) => group.kind === "dense");
  const title = section.qualities[quality] + (relative ? ", difference to dense" : "");
  plot(figure.querySelector(".plot"), {
    series, front: front.map(at), stamp: section.stamp, bars: is("intervals", true),
    dense: reference && table(reference)[quality] ? table(reference)[quality] : null,
    x: { ...quantity, title: isRatio ? `${quantity.title.replace(/ \(.*\)$/, "")}, dense = 1` : quantity.title, log: logarithmic },
    y: { title, log: logY }, label: `${title} against ${quantity.title}, ${section.title}. The numbers are in the table above.`,
  });
  const caption = figure.querySelector("figcaption");
  caption.dataset.text ??= caption.textContent;
  const names = [...new Set(front.map(named))];
  const disturbed = usable.some((group) => group.disturbed.includes(key))
    ? " Hollow points with an asterisk: other programs disturbed the measurement in at least one run, so the point is not ranked." : "";
  caption.textContent = estimated ? "Energy is only estimated here. Estimates are not ranked, so no Pareto front is drawn."
    : caption.dataset.text + (names.length ? ` On the front: ${names.join(", ")}.` : "") + disturbed;
}
function named(group) {
  return `${methods.get(group.method).title}${group.sparsity ? ` at ${percent(group.sparsity)}` : ""}`;
}
function atOneSparsity(figure, kind) {
  const slug = sectionOf(figure), section = data.sections[slug];
  const last = section.sparsities.at(-1) ?? 0;
  const sparsity = Number(chosen(`${slug}.at`, last));
  const groups = section.groups.map((group, index) => ({ ...group, index })).filter((group) => [0, sparsity].includes(group.sparsity));
  return { slug, section, sparsity, groups: groups.filter((group) => !hidden().has(group.method)),
    choice: section.sparsities.length > 1 ? select("at", `${slug}.at`, section.sparsities.map((each) => [each, percent(each)]), sparsity, last) : null };
}
function curves(figure, kind) {
  const { slug, section, groups, choice } = atOneSparsity(figure, kind);
  const every = section[kind === "training" ? "curves" : "triggers"];
  if (!every.some((curve) => curve?.points.length)) { figure.hidden = true; return; }
  const log = is(`${slug}.${kind}.logy`, kind === "trigger");
  controls(figure, [choice, check("log y", `${slug}.${kind}.logy`, log, kind === "trigger")]);
  const series = groups.filter((group) => every[group.index]).map((group) => ({
    method: group.method, line: true, bare: true, dash: DASHES[group.kind] ?? "", marks: every[group.index].pruned,
    points: every[group.index].points.map(([x, mean, low, high]) => ({ x: [x, null, null], y: [mean, low, high], text: "" })),
  })).filter((each) => each.points.length);
  // A trigger fires below its dotted line.
  const thresholds = groups.filter((group) => typeof every[group.index]?.threshold === "number" && every[group.index].points.length).map((group) => {
    const { points, threshold } = every[group.index];
    return { method: group.method, line: true, bare: true, dash: "1 4",
      points: [points[0][0], points.at(-1)[0]].map((x) => ({ x: [x, null, null], y: [threshold, null, null], text: "" })) };
  });
  plot(figure.querySelector(".plot"), { series: [...series, ...thresholds], stamp: section.stamp, bars: is("intervals", true),
    x: { title: "Epochs spent", log: false, from: 0 },
    y: { title: kind === "training" ? section.qualities.validation ?? `Validation ${section.metric}` : "Reading of the trigger", log },
    label: `${kind === "training" ? "Training curves" : "Trigger"} of ${section.title}, last values: ${series.map((each) => `${methods.get(each.method).title} ${written(each.points.at(-1).y[0])}`).join(", ")}` });
  if (kind === "trigger") figure.querySelector("figcaption").textContent = groups.filter((group) => every[group.index])
    .map((group) => `${methods.get(group.method).title}: fired ${times(every[group.index].fired)}, reached its cap ${times(every[group.index].capped)}`).join(". ") + ". Diamonds mark prunings; a trigger fires below its dotted line.";
}
function lengths(figure) {
  const { slug, section, groups, choice } = atOneSparsity(figure);
  const relative = is("relative", false), log = is(`${slug}.lengths.logy`, false);
  controls(figure, [choice, check("log y", `${slug}.lengths.logy`, log, false)]);
  const title = relative ? "Inference of a batch, dense = 1" : "Inference of a batch (ms)";
  const series = groups.filter((group) => section.lengths[group.index]).map((group) => {
    const { points } = section.lengths[group.index], disturbed = section.lengths[group.index].disturbed[Number(relative)];
    return { method: group.method, line: true, dash: DASHES[group.kind] ?? "",
      points: points.map(([length, time, ratio]) => [length, relative ? ratio : time]).filter(([, y]) => y).map(([length, y]) => ({
        x: [length, null, null], y, disturbed, runs: group.runs,
        text: `${named(group)}, length ${length}: ${title} ${withInterval(y)}${disturbed ? "; disturbed by other programs" : ""}` })) };
  }).filter((each) => each.points.length);
  plot(figure.querySelector(".plot"), { series, stamp: section.stamp, bars: is("intervals", true),
    x: { title: "Length of the sequences", log: true }, y: { title, log },
    label: `${title} over the length of sequences, ${section.title}. The numbers are in a table below.` });
}
const times = (count) => (count === 1 ? "once" : `${count} times`);
function density(figure) {
  const { section, groups, choice } = atOneSparsity(figure);
  if (!section.groups.some((group, index) => group.kind !== "dense" && section.densities[index].length)) { figure.hidden = true; return; }
  controls(figure, [choice]);
  const rows = groups.filter((group) => group.kind !== "dense" && section.densities[group.index].length);
  const host = figure.querySelector(".plot");
  host.classList.add("heat");
  host.replaceChildren();
  if (!rows.length) return;
  const titles = [...section.layers.map((layer) => `weights of ${layer}`), ...section.kinds], columns = titles.length;
  figure.classList.toggle("wide", columns > 12);
  const names = rows.map((group) => inLines(methods.get(group.method).title, 190));
  const left = 14 + Math.max(98, ...names.flat().map((line) => widthOf(line))), row = 22;
  const heights = names.map((lines) => Math.max(row, 8 + 14 * lines.length));
  const cell = Math.max(16, Math.min(64, ((host.clientWidth || 600) - left - 4) / columns));
  const width = Math.max(left + columns * cell + 4, left + 5 * 58), stamped = section.stamp ? inLines(section.stamp, width, 10.5, "600") : [];
  const top = 6 + 15 * stamped.length, bottom = top + heights.reduce((sum, each) => sum + each, 0), height = bottom + 26;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", style: `width:${width}px`, "aria-label": `Share of weights left in each of ${section.layers.length} layers, ${section.title}` });
  if (section.stamp) drawing.append(paragraph(stamped, 0, 13, 13, { class: "stamp-text" }));
  rows.forEach((group, index) => {
    const shares = [...section.densities[group.index], ...section.left[group.index]], high = heights[index];
    const y = top + heights.slice(0, index).reduce((sum, each) => sum + each, 0), middle = y + high / 2 + 4;
    const gone = shares.filter((share) => share === 0).length;
    const line = shape("g", { role: "img", "aria-label": `${named(group)}: from ${percent(Math.min(...shares))} to ${percent(Math.max(...shares))} left, ${gone} layers empty` },
      paragraph(names[index], left - 6, middle - 7 * (names[index].length - 1), 14, { "text-anchor": "end" }));
    shares.forEach((share, layer) => {
      const depth = share ? Math.max(0.05, 1 + Math.log10(Math.max(share, 1e-4)) / 4) : 0;
      const x = left + layer * cell;
      line.append(shape("rect", { x: x + 0.5, y: y + 1, width: cell - 1, height: high - 2, style: share ? `fill:rgba(var(--heat),${depth.toFixed(2)})` : "fill:none;stroke:var(--bad);stroke-width:1.5" },
        shape("title", {}, `${methods.get(group.method).title}, ${titles[layer]}: ${percent(share)} left`)));
      if (!share) line.append(shape("path", { class: "cross", d: `M${x + cell / 2 - 5} ${middle - 9}l10 10m0 -10l-10 10` }));
      else if (cell >= 38) line.append(shape("text", { x: x + cell / 2, y: middle, "text-anchor": "middle", style: `font-size:10.5px;${depth > 0.6 ? "fill:var(--card)" : ""}` }, `${Number((100 * share).toPrecision(2))}`));
    });
    drawing.append(line);
  });
  [1e-4, 1e-3, 1e-2, 1e-1, 1].forEach((share, index) => drawing.append(
    shape("rect", { x: left + index * 58, y: height - 18, width: 12, height: 12, style: `fill:rgba(var(--heat),${Math.max(0.05, 1 + Math.log10(share) / 4).toFixed(2)})` }),
    shape("text", { x: left + index * 58 + 16, y: height - 8, class: "faint", style: "font-size:10.5px" }, percent(share))));
  host.append(drawing);
}
function profile(figure) {
  const { thresholds, stamp, methods: list } = data.profiles[Number(figure.dataset.profile)];
  const series = list.filter((each) => !hidden().has(each.method)).map((each) => ({ method: each.method, line: true, bare: true, dash: DASHES[methods.get(each.method).kind] ?? "",
    points: each.values.map((value, index) => ({ x: [thresholds[index], null, null], y: [value, null, null] })) }));
  plot(figure.querySelector(".plot"), { series, stamp, x: { title: "Normalised score", log: false, theoretical: false }, y: { title: "Share of runs above", log: false }, label: "Performance profile of the ranked methods" });
  let key = figure.querySelector(".legend");
  if (!key) figure.querySelector(".plot").before(key = element("div", { class: "legend", role: "group", "aria-label": "Methods: press to hide or show" }));
  legend(key, list.map((each) => each.method));
}

// --- Controls ---
function controls(figure, list) {
  const host = figure.querySelector(".controls");
  const focused = host.contains(document.activeElement) ? document.activeElement.name : null;
  host.replaceChildren(...list.filter(Boolean));
  if (focused) host.querySelector(`[name="${CSS.escape(focused)}"]`)?.focus();
}
function select(label, key, options, value, fallback = options[0]?.[0]) {
  const list = element("select", { name: key }, ...options.map(([id, title]) => element("option", { value: id, selected: String(id) === String(value) }, title)));
  list.addEventListener("change", () => choose(key, list.value, fallback));
  return element("label", {}, label, list);
}
function check(label, key, value, fallback) {
  const box = element("input", { type: "checkbox", name: key, checked: value });
  box.addEventListener("change", () => choose(key, box.checked ? 1 : 0, fallback ? 1 : 0));
  return element("label", {}, box, label);
}
function legend(host, ids) {
  const focused = host.contains(document.activeElement) ? document.activeElement.dataset.method : null;
  host.replaceChildren(...ids.map((id) => {
    const off = hidden().has(id);
    const button = element("button", { type: "button", "aria-pressed": String(!off), "data-method": id },
      shape("svg", { viewBox: "0 0 30 18", "aria-hidden": "true", class: "plot" }, shape("line", { x1: 0, x2: 30, y1: 9, y2: 9, style: `stroke:${colour(id)};stroke-width:2`, "stroke-dasharray": DASHES[methods.get(id).kind] ?? "2 3" }), mark(id, 15, 9)),
      methods.get(id).title);
    button.addEventListener("click", () => {
      const now = hidden();
      if (off) now.delete(id); else now.add(id);
      choose("hide", [...now].join("|"), "");
    });
    return button;
  }));
  if (focused) host.querySelector(`[data-method="${CSS.escape(focused)}"]`)?.focus();
}
function sortable(table) {
  [...table.rows].forEach((row, place) => { row.dataset.place = place; });
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = element("button", { type: "button", title: "sort by this column" }, ...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      state.set(`${table.dataset.table}.sort`, `${column} ${header.getAttribute("aria-sort") === "ascending" ? "down" : "up"}`);
      remember();
      sort(table);
    });
  });
  sort(table);
}
// Sorts within blocks, as the state says, or as it was.
function sort(table) {
  const [column, direction] = (state.get(`${table.dataset.table}.sort`) ?? "").split(" ");
  const headers = [...table.tHead.rows[0].cells], header = headers[column], sign = direction === "down" ? -1 : 1;
  for (const each of headers) each.removeAttribute("aria-sort");
  header?.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const order = (row) => (header ? row.cells[column].dataset.order : row.dataset.place);
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("block"));
    rows.sort((a, b) => {
      const [first, second] = [order(a), order(b)];
      if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
      return sign * (Number.isNaN(Number(first)) ? first.localeCompare(second, "en") : first - second);
    });
    body.append(...rows);
  }
}

// --- Runs ---
const dialog = document.getElementById("run");
// The numbers of runs, a column for each run; numbers that no run has are left out.
function numbers(runs) {
  if (!runs.length) return null;
  const all = [{ title: `Test ${runs[0].metric}` }, { title: `Validation ${runs[0].metric}` }, ...data.numbers];
  const rows = all.map((row, place) => ({ ...row, values: runs.map((run) => run.numbers[place]) }))
    .filter(({ values }) => values.some((value) => value !== null));
  if (!rows.length) return null;
  const header = element("tr", {}, element("th", { scope: "col" }, "Of each run"),
    ...runs.map((run) => element("th", { scope: "col" }, `seed ${run.seed}`)));
  const guess = (energy, run, value) => (energy && run.estimated && value !== null ? "~" : "");
  const star = (run, key) => (run.disturbed[key] === undefined ? "" : "*");
  const body = rows.map(({ key, title, theoretical, energy, values }) => element("tr", {},
    element("th", { scope: "row", class: theoretical ? "counted" : null }, title),
    ...values.map((value, index) => element("td", {}, guess(energy, runs[index], value) + written(value) + star(runs[index], key)))));
  const table = element("table", { class: "numbers" }, element("thead", {}, header), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of these runs, table" }, table);
}
function showRuns(ids, title) {
  dialog.querySelector("h2").textContent = title;
  const together = numbers(ids.map((id) => data.runs[id]).filter(Boolean));
  dialog.querySelector(".body").replaceChildren(...(together ? [together] : []), ...ids.filter((id) => data.runs[id]).flatMap((id, index) => {
    const run = data.runs[id];
    const copy = element("button", { type: "button" }, "copy command");
    copy.addEventListener("click", () => copied(run.command, copy));
    const facts = [`${run.status}${run.reason ? `: ${run.reason}` : ""}`, `seed ${run.seed}`];
    if (run.numbers[0] !== null) facts.push(`test ${written(run.numbers[0])}`);
    if (run.commit) facts.push(`commit ${run.commit}`);
    else if (run.numbers[0] !== null) facts.push("commit not known");
    const disturbed = data.numbers.filter(({ key }) => run.disturbed[key] !== undefined)
      .map(({ key, title }) => `${title}${typeof run.disturbed[key] === "number" ? ` (${run.disturbed[key] > 0.05 ? `waited for a processor for ${percent(run.disturbed[key])} of the time` : "other programs kept processors busy"})` : ""}`);
    return [element("h3", {}, id), element("p", {}, facts.join(" · ")),
      disturbed.length ? element("p", { class: "warning" }, `* Other programs on the machine disturbed these measurements, which are not ranked: ${disturbed.join(", ")}.`) : null,
      element("pre", { class: "command" }, run.command), copy,
      data.shared[run.unmeasured] ? element("p", { class: "notes" }, `Not measured: ${data.shared[run.unmeasured]}.`) : null,
      data.shared[run.environment] ? element("pre", {}, data.shared[run.environment]) : null,
      run.log ? element("details", { open: index === 0 }, element("summary", {}, "end of the log"), element("pre", { tabindex: 0 }, run.log)) : null].filter(Boolean);
  }));
  if (!dialog.open) dialog.showModal();
}
function copied(text, button) {
  const label = button.textContent;
  const say = (words) => { button.textContent = words; setTimeout(() => { button.textContent = label; }, 1500); };
  navigator.clipboard?.writeText(text).then(() => say("copied"), () => say("copying is not permitted here; please select and copy"));
  if (!navigator.clipboard) say("copying is not permitted here; please select and copy");
}
dialog.addEventListener("close", () => { state.delete("run"); remember(); });

// --- The whole page ---
const toolbar = document.querySelector(".toolbar");
toolbar.hidden = false;
function redraw() {
  toolbar.elements.relative.checked = is("relative", false);
  toolbar.elements.intervals.checked = is("intervals", true);
  toolbar.elements.theme.value = chosen("theme", "");
  if (chosen("theme", "")) document.documentElement.dataset.theme = chosen("theme", "");
  else delete document.documentElement.dataset.theme;
  for (const host of document.querySelectorAll("section.task > .legend"))
    legend(host, [...new Set(data.sections[sectionOf(host)].groups.map((group) => group.method))]);
  for (const figure of document.querySelectorAll("figure.chart")) draw(figure);
}
function draw(figure) {
  const kind = figure.dataset.chart;
  if (kind === "profile") profile(figure);
  else if (kind === "training" || kind === "trigger") curves(figure, kind);
  else if (kind === "density") density(figure);
  else if (kind === "lengths") lengths(figure);
  else scatter(figure, kind);
}
toolbar.elements.relative.addEventListener("change", (event) => choose("relative", event.target.checked ? 1 : 0, 0));
toolbar.elements.intervals.addEventListener("change", (event) => choose("intervals", event.target.checked ? 1 : 0, 1));
toolbar.elements.theme.addEventListener("change", (event) => choose("theme", event.target.value, ""));
toolbar.elements.share.addEventListener("click", (event) => copied(location.href, event.target));
toolbar.addEventListener("reset", (event) => {
  event.preventDefault();
  for (const key of [...state.keys()]) state.delete(key);
  remember();
  redraw();
  document.querySelectorAll("table.sortable").forEach(sort);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  const target = link.getAttribute("href").slice(1);
  event.preventDefault();
  if (target.startsWith("run=")) {
    const id = decodeURIComponent(target.slice(4));
    state.set("run", id);
    remember();
    const group = Object.values(data.sections).flatMap((section) => section.groups).find((each) => each.runs.includes(id));
    showRuns(group ? [id, ...group.runs.filter((each) => each !== id)] : [id], group ? named(group) : "Not run");
  } else {
    state.set("at", target);
    remember();
    const place = document.getElementById(target);
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
    place.scrollIntoView();
  }
});
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
if (location.hash.length > 1 && !location.hash.includes("=")) state.set("at", decodeURIComponent(location.hash.slice(1)));
redraw();
// The head of a table stays below the toolbar while the page scrolls. CSS does this for tables whose
// whole width is visible. Other tables scroll sideways, so their heads are moved by this script.
let sideways = [];
let bar = 0;
function fitTables() {
  bar = getComputedStyle(toolbar).position === "sticky" ? toolbar.offsetHeight : 0;
  document.documentElement.style.setProperty("--bar", `${bar}px`);
  const hosts = [...document.querySelectorAll("main .scroll")];
  for (const host of hosts) { host.classList.remove("whole"); host.style.removeProperty("--head"); }
  const whole = new Set(hosts.filter((host) => host.clientWidth && host.scrollWidth <= host.clientWidth));
  for (const host of whole) host.classList.add("whole");
  sideways = hosts.filter((host) => !whole.has(host));
  moveHeads();
}
function moveHeads() {
  for (const host of sideways) {
    const table = host.querySelector("table"), head = table.tHead;
    const most = table.offsetHeight - head.offsetTop - head.offsetHeight - 40;
    const down = Math.min(bar - table.getBoundingClientRect().top - head.offsetTop, most);
    host.style.setProperty("--head", `${Math.max(Math.round(down), 0)}px`);
  }
}
let moving = false;
addEventListener("scroll", () => {
  if (!moving) requestAnimationFrame(() => { moving = false; moveHeads(); });
  moving = true;
}, { passive: true });
fitTables();
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); fitTables(); } });
addEventListener("beforeprint", redraw);
// The address was edited to show another view.
addEventListener("hashchange", () => location.reload());
if (state.get("at")) document.getElementById(state.get("at"))?.scrollIntoView();
if (data.runs[state.get("run")]) showRuns([state.get("run")], state.get("run"));
})();
