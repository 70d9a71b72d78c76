"use strict";
(() => {
  const page = document, data = JSON.parse(page.getElementById("data").textContent);
  const NS = page.querySelector("#drawing").content.firstElementChild.namespaceURI;
  const picked = { layer: null, component: "" }, redraws = [], filters = [];
  const FIELDS = ["panel", "series", "label", "x", "row", "value", "low", "high", "component", "layer"];

  const make = (name, attributes = {}, ...inside) => {
    const node = page.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...inside);
    return node;
  };
  const draw = (name, attributes = {}, text = "") => {
    const node = page.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== "") node.textContent = text;
    return node;
  };
  const isNumber = value => typeof value === "number" && Number.isFinite(value);
  const shown = value => !isNumber(value) ? String(value ?? "-")
    : Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : String(+value.toPrecision(3));
  const distinct = values => [...new Set(values)];
  const range = (values, zero) => {
    const all = values.filter(isNumber);
    if (zero) all.push(0);
    let low = Math.min(...all), high = Math.max(...all);
    if (!(high > low)) { low -= .5; high += .5; }
    const more = (high - low) * .04;
    return [zero && low === 0 ? 0 : low - more, zero && high === 0 ? 0 : high + more];
  };
  const ticks = ([low, high], most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(+at.toPrecision(10));
    return found;
  };
  const onto = ([low, high], start, end) => value => start + (value - low) / (high - low) * (end - start);
  const fitting = (text, width) => text.length * 6.6 <= width ? text : text.slice(0, Math.max(1, Math.floor(width / 6.6) - 1)) + "\u2026";

  /* What a mark says when it is pointed at or walked to. */
  const amount = (view, value) => isNumber(value) && view.digits !== null ? value.toFixed(view.digits).replace(/^-(0\.?0*)$/, "$1") : shown(value);
  const words = (view, mark) => {
    const name = [mark.label, mark.panel, mark.series, mark.component].filter((v, n, all) => v && all.indexOf(v) === n
      && !all.slice(0, n).some(other => other && other.split(", ").includes(v)));
    if (view.shape === "cells") name.push([mark.row, mark.x].filter(v => v !== "").map(shown).join(", "));
    const said = [];
    if (view.shape === "points" || view.shape === "lines") said.push(`${view.across || "x"} ${shown(mark.x)}`);
    const span = isNumber(mark.low) && isNumber(mark.high) ? ` [${amount(view, mark.low)}, ${amount(view, mark.high)}]` : "";
    said.push(`${view.named[mark.panel] || view.words || "value"} ${amount(view, mark.value)}${span}`);
    return `${name.join(" \u00b7 ")}: ${said.join(", ")}`.replace(/^: /, "");
  };

  /* Shapes of marks: told apart without colour. */
  const SHAPES = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-5l5,5l-5,5l-5,-5z", "M0,5l5,-9h-10z",
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"];
  const shape = n => SHAPES[(n + Math.floor(n / 6)) % 6];
  const DASHES = ["", "6 3", "7 3 2 3", "2 3", "", "6 3"];
  const place = (node, x, y) => { node.setAttribute("transform", `translate(${x.toFixed(1)},${y.toFixed(1)})`); return node; };

  const legend = series => {
    if (series.length < 2) return null;
    const list = make("ul", { class: "legend" });
    series.forEach((name, n) => {
      const key = draw("svg", { width: 14, height: 14, "aria-hidden": "true" });
      key.append(place(draw("path", { d: shape(n), class: `s${n % 6}` }), 7, 7));
      list.append(make("li", {}, key, name || "all"));
    });
    return list;
  };

  const axisBelow = (svg, scale, numbers, y, name, left, right) => {
    for (const tick of numbers) {
      svg.append(draw("line", { x1: scale(tick), x2: scale(tick), y1: y, y2: y + 4, class: "axis" }),
        draw("text", { x: scale(tick), y: y + 16, "text-anchor": "middle" }, String(tick)));
    }
    svg.append(draw("line", { x1: left, x2: right, y1: y, y2: y, class: "axis" }),
      draw("text", { x: (left + right) / 2, y: y + 33, "text-anchor": "middle" }, name));
  };

  const DRAWERS = {
    bars(view, width, add) { return rowsOf(view, width, add, false); },
    cascade(view, width, add) { return rowsOf(view, width, add, true); },

    lines(view, width, add, series) {
      const panels = distinct(view.marks.map(m => m.panel)), svg = draw("svg"), left = 46, right = width - 10;
      const xs = range(view.marks.map(m => m.x)), across = onto(xs, left, right), each = panels.length > 1 ? 104 : 210;
      const whole = view.marks.every(m => Number.isInteger(m.x));
      const numbers = ticks(xs, Math.max(2, Math.min(8, width / 70))).filter(t => !whole || Number.isInteger(t));
      let top = 8;
      for (const panel of panels) {
        if (panel) { svg.append(draw("text", { x: left, y: top + 8, class: "title" }, panel)); top += 16; }
        const marks = view.marks.filter(m => m.panel === panel && isNumber(m.value) && isNumber(m.x));
        const ys = range(marks.flatMap(m => [m.value, m.low, m.high])), up = onto(ys, top + each, top);
        for (const tick of ticks(ys, 4)) svg.append(draw("line", { x1: left, x2: right, y1: up(tick), y2: up(tick), class: "grid" }),
          draw("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, String(tick)));
        if (ys[0] < 0 && ys[1] > 0) svg.append(draw("line", { x1: left, x2: right, y1: up(0), y2: up(0), class: "axis" }));
        for (const name of distinct(marks.map(m => m.series))) {
          const n = series.indexOf(name), line = marks.filter(m => m.series === name).sort((a, b) => a.x - b.x);
          const band = line.filter(m => isNumber(m.low) && isNumber(m.high));
          if (band.length > 1) svg.append(draw("path", { class: `band s${n % 6}`, d: `M${band.map(m => `${across(m.x)},${up(m.high)}`).join("L")}L${
            band.slice().reverse().map(m => `${across(m.x)},${up(m.low)}`).join("L")}z` }));
          svg.append(draw("path", { class: `line s${n % 6}`, "stroke-dasharray": DASHES[n % 6], d: `M${line.map(m => `${across(m.x)},${up(m.value)}`).join("L")}` }));
          for (const mark of line) add(svg, mark, place(draw("path", { d: shape(n), class: `s${n % 6}` }), across(mark.x), up(mark.value)));
        }
        top += each + 14;
      }
      axisBelow(svg, across, numbers, top - 8, view.across, left, right);
      return [svg, top + 34];
    },

    points(view, width, add, series) {
      const svg = draw("svg"), left = 52, side = Math.min(width, 460), right = side - 12, bottom = side - 42;
      const marks = view.marks.filter(m => isNumber(m.value) && isNumber(m.x));
      const xs = range(marks.map(m => m.x)), ys = range(marks.flatMap(m => [m.value, m.low, m.high]));
      const across = onto(xs, left, right), up = onto(ys, bottom, 8);
      for (const tick of ticks(ys, 6)) svg.append(draw("line", { x1: left, x2: right, y1: up(tick), y2: up(tick), class: "grid" }),
        draw("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, String(tick)));
      const low = Math.max(xs[0], ys[0]), high = Math.min(xs[1], ys[1]);
      if (/base|predicted/.test(view.across) && high > low) svg.append(draw("line", { x1: across(low), y1: up(low), x2: across(high), y2: up(high), class: "same" }));
      svg.append(draw("text", { "text-anchor": "middle",
        transform: `translate(13,${(8 + bottom) / 2}) rotate(-90)` }, view.words));
      for (const mark of marks) {
        const n = series.indexOf(mark.series), x = across(mark.x), group = draw("g");
        if (isNumber(mark.low) && isNumber(mark.high)) group.append(draw("line", { x1: x, x2: x, y1: up(mark.low), y2: up(mark.high), class: "span" }));
        group.append(place(draw("path", { d: shape(n), class: `s${n % 6}` }), x, up(mark.value)));
        add(svg, mark, group);
      }
      axisBelow(svg, across, ticks(xs, Math.max(2, side / 90)), bottom, view.across, left, right);
      return [svg, side];
    },

    cells(view, width, add) {
      const rows = distinct(view.marks.map(m => m.row)), columns = distinct(view.marks.map(m => m.x));
      if (columns.every(isNumber)) columns.sort((a, b) => a - b);
      const left = Math.min(130, Math.max(...rows.map(r => String(r).length)) * 6.8 + 12), cell = Math.min(88, (width - left) / columns.length);
      const largest = columns.map(c => Math.max(...view.marks.filter(m => m.x === c).map(m => Math.abs(m.value) || 0))).sort((a, b) => b - a);
      const most = (columns.every(isNumber) || columns.length < 2 ? largest[0] : largest[1] || largest[0]) || 1, high = 26, svg = draw("svg");
      const least = Math.min(...view.marks.map(m => isNumber(m.value) ? m.value : 0)), kinds = distinct(view.marks.map(m => m.value));
      rows.forEach((row, n) => svg.append(draw("text", { x: left - 6, y: n * high + 18, "text-anchor": "end" }, fitting(String(row), left - 6))));
      const every = Math.ceil(Math.max(...columns.map(c => String(c).length)) * 7 / cell), slant = every > 1 && !columns.every(isNumber);
      columns.forEach((column, n) => (slant || n % every === 0) && svg.append(draw("text", slant
        ? { transform: `translate(${left + (n + .6) * cell},${rows.length * high + 12}) rotate(-40)`, "text-anchor": "end" }
        : { x: left + (n + .5) * cell, y: rows.length * high + 16, "text-anchor": "middle" }, String(column))));
      for (const mark of view.marks) {
        const x = left + columns.indexOf(mark.x) * cell, y = rows.indexOf(mark.row) * high, group = draw("g");
        const strength = isNumber(mark.value) ? (least >= 0 && view.words === "similarity" ? (mark.value - least) / (most - least || 1) : Math.min(1, Math.abs(mark.value) / most)) : 1;
        group.append(draw("rect", { x: x + 1, y: y + 1, width: Math.max(1, cell - 2), height: high - 2, class: "cell" }),
          draw("rect", { x: x + 1, y: y + 1, width: Math.max(1, cell - 2), height: high - 2, "fill-opacity": (.85 * strength).toFixed(3),
            class: isNumber(mark.value) ? (mark.value < 0 ? "minus" : "plus") : `s${kinds.indexOf(mark.value) % 6}` }));
        const text = isNumber(mark.value) ? amount(view, mark.value) : fitting(mark.value, Math.max(cell - 6, 14));
        if ((cell > text.length * 7 + 4 || !isNumber(mark.value)) && strength > .02) group.append(draw("text", { x: x + cell / 2, y: y + 18, "text-anchor": "middle",
          class: strength > .5 ? "inside" : "" }, text));
        else if (isNumber(mark.value) && strength > .3 && cell > 9) group.append(draw("text", { x: x + cell / 2, y: y + 18, "text-anchor": "middle",
          class: strength > .5 ? "inside" : "" }, mark.value < 0 ? "\u2212" : "+"));
        add(svg, mark, group);
      }
      return [svg, rows.length * high + (slant ? 66 : 24)];
    },
  };

  function rowsOf(view, width, add, cascade) {
    const svg = draw("svg"), high = 24, series = distinct(view.marks.map(m => m.series));
    const left = Math.min(width * .36, Math.max(...view.marks.map(m => m.label.length)) * 6.8 + 12), right = width - 52;
    let top = 4, start = 0;
    for (const panel of distinct(view.marks.map(m => m.panel))) {
      const marks = view.marks.filter(m => m.panel === panel);
      if (panel) { svg.append(draw("text", { x: 0, y: top + 12, class: "title" }, panel)); top += 20; }
      const begins = marks.map(mark => { const from = cascade && mark.series !== "tax" ? start : 0; start = from + (mark.value || 0); return from; });
      const xs = range(marks.flatMap((m, n) => [begins[n], begins[n] + m.value, begins[n] + (m.low ?? m.value), begins[n] + (m.high ?? m.value)]), true);
      const across = onto(xs, left, right);
      svg.append(draw("line", { x1: across(0), x2: across(0), y1: top, y2: top + marks.length * high, class: "axis" }));
      marks.forEach((mark, n) => {
        const y = top + n * high + 12, from = across(begins[n]), to = across(begins[n] + (mark.value || 0)), group = draw("g");
        const look = mark.series === "tax" && cascade ? "total" : mark.series === "residual" || mark.series === "others" ? "rest" : `s${series.indexOf(mark.series) % 6}`;
        group.append(draw("rect", { x: 0, y: y - 12, width, height: high, class: "hit" }),
          draw("rect", { x: Math.min(from, to), y: y - 7, width: Math.max(1.5, Math.abs(to - from)), height: 14, class: look }));
        if (isNumber(mark.low) && isNumber(mark.high)) group.append(draw("line", { x1: across(begins[n] + mark.low), x2: across(begins[n] + mark.high), y1: y, y2: y, class: "span" }));
        group.append(draw("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, fitting(mark.label, left - 6)),
          draw("text", { x: width - 2, y: y + 4, "text-anchor": "end", class: "amount" }, amount(view, mark.value)));
        add(svg, mark, group);
      });
      top += marks.length * high + 6;
      axisBelow(svg, across, ticks(xs, Math.max(2, width / 110)), top - 4, view.named[panel] || view.words, left, right);
      top += 42;
    }
    return [svg, top];
  }

  const tip = make("div", { class: "tip", hidden: "" });
  page.body.append(tip);
  const showTip = (text, at) => {
    tip.textContent = text; tip.hidden = false;
    const box = tip.getBoundingClientRect(), wide = page.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(at.left + at.width / 2 - box.width / 2, wide - box.width - 4)) + scrollX}px`;
    tip.style.top = `${(at.top - box.height - 8 > 0 ? at.top - box.height - 8 : at.bottom + 8) + scrollY}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  page.addEventListener("keydown", event => event.key === "Escape" && hideTip());

  const chart = (figure, view) => {
    view.marks = view.marks.map(values => Object.fromEntries(FIELDS.map((name, n) => [name, values[n]])));
    const name = figure.querySelector("img").alt, said = make("p", { class: "said", role: "status" });
    const series = distinct(view.marks.map(m => m.series));
    const box = make("div", { class: "chart", tabindex: "0", role: "group", "aria-label":
      `${name} ${view.marks.length} marks; arrow keys walk through them, Enter picks a layer or component.` });
    const pane = figure.querySelector(".pane"), fold = make("details", { class: "printed" }, make("summary", {}, "As printed"));
    pane.before(box, said, fold); fold.append(pane);
    const listed = view.shape === "bars" || view.shape === "cascade" ? series.filter(s => s !== "tax" && s !== "residual" && s !== "others") : series;
    const key = view.shape === "cells" ? legend(distinct(view.marks.map(m => m.value).filter(v => v !== null && !isNumber(v)))) : legend(view.shape === "bars" || view.shape === "cascade" ? listed : series);
    if (key) box.before(key);
    if (view.of > view.marks.length) box.before(make("p", { class: "note" }, `${view.marks.length} of ${view.of}: those that moved most.`));
    let nodes = [], at = -1;
    const walk = to => {
      nodes.forEach(({ node }) => node.classList.remove("at"));
      at = (to + nodes.length) % nodes.length;
      const { node, mark } = nodes[at];
      node.classList.add("at"); said.textContent = words(view, mark); showTip(words(view, mark), node.getBoundingClientRect());
    };
    box.addEventListener("keydown", event => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (steps && nodes.length) { walk(at < 0 && steps < 0 ? nodes.length - 1 : at + steps); event.preventDefault(); }
      if (event.key === "Home" && nodes.length) { walk(0); event.preventDefault(); }
      if (event.key === "End" && nodes.length) { walk(nodes.length - 1); event.preventDefault(); }
      if ((event.key === "Enter" || event.key === " ") && at >= 0) { pick(nodes[at].mark.layer, nodes[at].mark.component); event.preventDefault(); }
    });
    box.addEventListener("blur", hideTip);
    const render = () => {
      const width = Math.max(240, box.clientWidth - 2);
      nodes = [];
      const add = (svg, mark, node) => {
        node.classList.add("mark");
        node.addEventListener("pointerenter", () => showTip(words(view, mark), node.getBoundingClientRect()));
        node.addEventListener("pointerleave", hideTip);
        node.addEventListener("click", () => { at = nodes.findIndex(n => n.node === node); said.textContent = words(view, mark); pick(mark.layer, mark.component); });
        svg.append(node); nodes.push({ node, mark });
      };
      const [svg, height] = DRAWERS[view.shape](view, width, add, series);
      for (const [attribute, value] of Object.entries({ width, height, "aria-hidden": "true" })) svg.setAttribute(attribute, value);
      box.replaceChildren(svg); mark();
    };
    const mark = () => {
      const about = nodes.some(({ mark: m }) => fits(m));
      for (const { node, mark: m } of nodes) { node.classList.toggle("on", about && fits(m)); node.classList.toggle("off", about && !fits(m)); }
      if (at >= 0 && nodes[at]) nodes[at].node.classList.add("at");
    };
    redraws.push({ render, mark });
    if ("ResizeObserver" in window) {
      let before = 0;
      const fit = () => { if (box.clientWidth && box.clientWidth !== before) { before = box.clientWidth; render(); } };
      fit();
      new ResizeObserver(() => requestAnimationFrame(fit)).observe(box);
    } else render();
  };
  const fits = m => picked.component ? m.component === picked.component || (!m.component && m.layer === picked.layer && m.layer !== null)
    : picked.layer !== null && m.layer === picked.layer;

  /* One layer or component, picked in any picture, is marked in all of them, and filters the tables. */
  const bar = page.getElementById("pick"), layers = make("select", { id: "pick-layer" }), parts = make("select", { id: "pick-component" });
  const pick = (layer, component) => {
    if (layer === null || layer === undefined) { if (!component) return; }
    const same = picked.layer === (layer ?? null) && picked.component === (component || "");
    set(same ? null : layer ?? null, same ? "" : component || "");
  };
  const set = (layer, component) => {
    picked.layer = layer; picked.component = component;
    layers.value = layer === null ? "" : String(layer); parts.value = component;
    redraws.forEach(one => one.mark()); filters.forEach(filter => filter());
    page.getElementById("pick-said").textContent = component ? `${component} is marked in every picture and table.`
      : layer !== null ? `Layer ${layer} is marked in every picture and table.` : "Nothing is picked.";
  };
  const offer = views => {
    const marks = views.flatMap(view => view.marks), all = marks.map(m => m.layer).filter(l => l !== null);
    const components = distinct(marks.map(m => m.component).filter(Boolean));
    const fill = (select, values) => { select.append(make("option", { value: "" }, "any"), ...values.map(v => make("option", { value: String(v) }, String(v)))); };
    if (!all.length) return;
    fill(layers, distinct(all).sort((a, b) => a - b)); fill(parts, components);
    layers.addEventListener("change", () => set(layers.value === "" ? null : +layers.value, ""));
    parts.addEventListener("change", () => set(parts.value ? (marks.find(m => m.component === parts.value).layer) : null, parts.value));
    const clear = make("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => set(null, ""));
    bar.append(make("label", { for: "pick-layer" }, "Layer "), layers, make("label", { for: "pick-component" }, "Component "), parts, clear,
      make("span", { id: "pick-said", role: "status" }, "Nothing is picked."));
    bar.hidden = false;
  };

  /* Tables: a button in every head sorts, a field filters, and what is picked is filtered for. */
  const sortable = table => {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
    const names = heads.map(h => h.textContent.trim()), field = make("input", { type: "search", autocomplete: "off" });
    const said = make("span", { class: "count", role: "status" }), text = rows.map(r => r.textContent.toLowerCase());
    const label = make("label", { class: "filter" }, `Filter ${table.dataset.name} `, field);
    table.closest(".wide").before(make("p", { class: "tools" }, label, said));
    const places = [names.indexOf("component"), Math.max(names.indexOf("layer"), names.indexOf("layer_base"))];
    const filter = () => {
      let left = 0;
      const here = picked.component && places[0] >= 0 ? [places[0], picked.component] : picked.layer !== null && places[1] >= 0 ? [places[1], String(picked.layer)] : null;
      rows.forEach((row, n) => {
        const keep = text[n].includes(field.value.trim().toLowerCase()) && (!here || row.cells[here[0]].textContent.trim() === here[1]);
        row.hidden = !keep; left += keep;
      });
      said.textContent = ` ${left} of ${rows.length} rows${here ? `, ${names[here[0]]} ${here[1]}` : ""}`;
    };
    field.addEventListener("input", filter); filters.push(filter); filter();
    heads.forEach((head, n) => {
      const button = make("button", { type: "button", class: "sort", title: head.title || `Sort by ${names[n]}` }, names[n]);
      head.removeAttribute("title"); head.replaceChildren(button); head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach(h => h.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = row => { const said = row.cells[n].textContent.trim(), number = parseFloat(said); return said !== "" && !Number.isNaN(number) && /^[-+\d.]/.test(said) ? number : said; };
        const order = (a, b) => { const x = key(a), y = key(b); return x === "" ? 1 : y === "" ? -1 : typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }); };
        const ordered = rows.filter(r => key(r) !== "").sort(order);
        if (!up) ordered.reverse();
        body.append(...ordered, ...rows.filter(r => key(r) === ""));
      });
    });
  };

  for (const [name, view] of Object.entries(data.views)) {
    const figure = page.getElementById(`figure-${name}`);
    if (figure && figure.querySelector("img")) chart(figure, view);
  }
  offer(Object.values(data.views));
  page.querySelectorAll("table[data-name]").forEach(sortable);
  page.documentElement.classList.add("ready");
})();
