/* SPDX-License-Identifier: Apache-2.0
   SPDX-FileCopyrightText: The boxwright authors

   The report's page. Text from the data reaches the page as text nodes and attributes only, never as markup. */
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const GALLERY = 12; // pictures of a row of the gallery
  const TABBABLE = 40; // objects in an image that the Tab key visits; the table holds all
  const KEPT = 24; // images whose details stay parsed
  const LEVEL_COLOURS = ["#4db5ff", "#ffb000", "#ff6f9c", "#8be35f", "#c9a3ff"];
  const NO_POSITIVE = "no positive";

  // -- small helpers ------------------------------------------------------------------------------------------------

  function make(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }
  function draw(tag, attributes, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }
  function number(value, digits = 4) {
    if (value === null || value === undefined) return "–";
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) return value.toExponential(2);
    return value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: digits });
  }
  const loss = (value) => (value === null ? "not finite" : number(value)); // undefined: there is none
  const percent = (part, whole) => (whole ? `${number((100 * part) / whole, 3)} %` : "–");
  const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
  const size = (columns) => Object.values(columns)[0]?.length ?? 0;
  const range = (count) => Array.from({ length: count }, (_, index) => index);
  const rowsOf = (columns) => range(size(columns));

  // -- data ---------------------------------------------------------------------------------------------------------

  const objects = data.objects, images = data.images, background = data.background, other = data.against;
  const terms = data.terms.map((row) => row.term);
  const parts = data.parts.map((row) => row.part);
  const fates = data.fates;
  const shown = fates.filter((fate) => [objects, other?.objects].some((side) => side?.[`fate/${fate.fate}`]?.some((count) => count > 0)));
  const strides = [...new Set(Object.keys(objects).map((name) => /(?:^|\/)cells_s(\d+)$/.exec(name)?.[1]).filter(Boolean).map(Number))]
    .sort((a, b) => a - b);
  const objectsOf = range(size(images)).map(() => []);
  for (const row of rowsOf(objects)) objectsOf[objects.image[row]]?.push(row);
  const slots = new Map(rowsOf(objects).map((row) => [`${objects.image[row]}/${objects.object[row]}`, row]));
  const rowAt = (image, slot) => slots.get(`${image}/${slot}`);
  const imageNumber = (image) => images.image[image];
  const rolesOf = new Set(parts.map((part) => part.replace(/\d+$/, "")));

  const cache = new Map();
  function detailsOf(image) {
    if (!cache.has(image)) {
      cache.set(image, JSON.parse(byId(`details-${image}`)?.textContent || "[]"));
      if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    }
    return cache.get(image);
  }
  const pictureOf = (image) => byId(`picture-${image}`)?.textContent || "";

  const state = {
    image: 0, object: null, hovered: null, background: null, candidate: null, tab: null,
    klass: "", fate: "", term: "", part: "", level: "", grids: new Set(), found: false, view: null,
  };
  // Several branches: predictions come from the last. Levels of one head belong together.
  if (rolesOf.size > 1 || (parts.length > 1 && !strides.length)) state.part = parts[parts.length - 1];

  const lossColumn = () => (state.term && objects[state.term] ? state.term : "loss");
  const weighty = (value) => (value === null ? Infinity : value);
  const objectPasses = (row) =>
    (!state.klass || objects.class[row] === state.klass) &&
    (!state.fate || (state.fate === NO_POSITIVE ? objects.positives[row] === 0 : (objects[`fate/${state.fate}`]?.[row] ?? 0) > 0)) &&
    (!state.term || !objects[state.term] || objects[state.term][row] !== 0);
  const backgroundPasses = (row) =>
    !state.klass || background.class[row] === state.klass || background.nearest_class[row] === state.klass;
  function findingPasses(row) {
    const finding = data.findings[row];
    const about = finding.object === null ? undefined : rowAt(finding.image, finding.object);
    return (about === undefined ? !state.klass && !state.fate : objectPasses(about)) &&
      (!state.term || !finding.term || finding.term === state.term);
  }
  const imagePasses = (row) =>
    !(state.klass || state.fate) || !size(objects) ? !state.klass || !images.class || images.class[row] === state.klass
      : objectsOf[row].some(objectPasses);

  /* Candidates of an object on one side: what was weighed, joined with what its pairs pay. Null: left out for room. */
  function candidatesOf(row, side) {
    const held = detailsOf(objects.image[row])[side];
    if (!held) return null;
    const slot = objects.object[row], pairs = new Map(), found = [];
    const of = held.pairs, columns = held.candidates;
    const key = (from, index) => `${from.part[index]}/${from.candidate[index]}`;
    for (const index of rowsOf(of)) if (of.object[index] === slot) {
      const name = key(of, index);
      pairs.set(name, [...(pairs.get(name) || []), index]);
    }
    const cell = (from, name, index) => (from[name] ? from[name][index] : null);
    const joined = (from, index, pair, fate) => {
      const one = { part: from.part[index], candidate: from.candidate[index], fate, pair: pair !== undefined };
      for (const name of ["x", "y", "stride", "score", "overlap", "metric", "rank", "other", "prior_w", "prior_h"]) one[name] = cell(from, name, index);
      for (const name of pair === undefined ? [] : Object.keys(of)) if (!(name in one) || one[name] === null) one[name] = of[name][pair];
      return one;
    };
    if (size(columns)) {
      for (const index of rowsOf(columns)) if (columns.object[index] === slot) {
        const fate = fates[columns.fate[index]].fate;
        found.push(joined(columns, index, fate === "positive" ? pairs.get(key(columns, index))?.shift() : undefined, fate));
      }
    } else for (const list of pairs.values()) for (const index of list) found.push(joined(of, index, index, "positive"));
    return found.filter((one) =>
      (!state.part || one.part === state.part) && (!state.level || String(one.stride) === state.level) &&
      (!state.fate || state.fate === NO_POSITIVE || one.fate === state.fate));
  }

  // -- tables -------------------------------------------------------------------------------------------------------

  /* A sortable, paged table. The first cell of a row that can be picked is a button; arrow keys go from row to row. */
  class Listing {
    constructor(options) {
      Object.assign(this, { page: 0, sort: null, descending: true, pageSize: data.page_size }, options);
      this.body = make("tbody");
      this.pager = make("div", { class: "pager" });
      this.head = make("tr");
      this.empty = make("p", { class: "empty" }, this.none || "Nothing to list.");
      this.table = make("table", {}, make("caption", { class: this.quiet ? "sr" : null }, this.caption), make("thead", {}, this.head), this.body);
      this.node = make("div", { class: "listing" }, make("div", { class: "scroll" }, this.table), this.empty, this.pager);
      this.body.addEventListener("keydown", (event) => this.move(event));
      this.setColumns(options.columns);
    }
    setColumns(columns) {
      this.columns = columns;
      this.head.replaceChildren(...columns.map((column, index) => {
        const inner = column.value
          ? make("button", { type: "button", title: column.words, click: () => this.sortBy(index) }, column.title) : column.title;
        return make("th", { scope: "col", class: column.numeric ? "n" : null, title: column.value ? null : column.words }, inner);
      }));
    }
    sortBy(index) {
      this.descending = this.sort === index ? !this.descending : Boolean(this.columns[index].numeric);
      this.sort = index;
      this.page = 0;
      this.render();
    }
    render() {
      let rows = this.rows();
      const column = this.columns[this.sort];
      if (column) {
        const keys = new Map(rows.map((row) => [row, column.value(row)]));
        const sign = this.descending ? -1 : 1;
        rows = [...rows].sort((a, b) => {
          const one = keys.get(a), two = keys.get(b);
          if (one === two) return 0;
          if (one === null || one === undefined || two === null || two === undefined) return one === null || one === undefined ? 1 : -1;
          return sign * (one < two ? -1 : 1);
        });
      }
      [...this.head.children].forEach((cell, index) => {
        if (this.columns[index].value) cell.setAttribute("aria-sort", this.sort === index ? (this.descending ? "descending" : "ascending") : "none");
      });
      this.count = rows.length;
      const pages = Math.max(1, Math.ceil(rows.length / this.pageSize));
      this.page = Math.min(this.page, pages - 1);
      this.listed = rows.slice(this.page * this.pageSize, (this.page + 1) * this.pageSize);
      this.body.replaceChildren(...this.listed.map((row) => this.line(row)));
      this.table.hidden = !rows.length;
      this.empty.hidden = rows.length > 0;
      this.renderPager(pages);
      this.mark();
    }
    line(row) {
      const cells = this.columns.map((column, index) => {
        let content = column.cell(row);
        if (index === 0 && this.pick) {
          content = make("button", { type: "button", class: "plain", tabindex: "-1", "aria-label": this.label ? this.label(row) : null }, content);
        }
        return make("td", { class: [column.numeric ? "n" : "", index === 0 ? "first" : "", column.line ? "line" : ""].join(" ").trim() || null }, content);
      });
      const line = make("tr", this.pick ? { class: "pick", click: (event) => this.take(row, event) } : {}, cells);
      if (this.hover) {
        line.addEventListener("mouseenter", () => this.hover(row));
        line.addEventListener("mouseleave", () => this.hover(null));
        line.addEventListener("focusin", () => this.hover(row));
        line.addEventListener("focusout", () => this.hover(null));
      }
      return line;
    }
    take(row, event) {
      const inner = event.target.closest("button");
      if (inner && !inner.parentElement.classList.contains("first")) return; // a button of its own
      this.pick(row);
    }
    mark() {
      let current = 0;
      this.listed?.forEach((row, index) => {
        const is = Boolean(this.current?.(row));
        this.body.children[index].toggleAttribute("aria-current", is);
        if (is) { this.body.children[index].setAttribute("aria-current", "true"); current = index; }
      });
      this.stops().forEach((button, index) => { button.tabIndex = index === current ? 0 : -1; });
    }
    stops() { return this.pick ? [...this.body.querySelectorAll("td.first > button")] : []; }
    move(event) {
      const stops = this.stops(), at = stops.indexOf(document.activeElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: stops.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const next = stops[Math.max(0, Math.min(stops.length - 1, to))];
      stops.forEach((stop) => { stop.tabIndex = stop === next ? 0 : -1; });
      next.focus();
    }
    renderPager(pages) {
      this.pager.hidden = pages < 2;
      const turn = (by) => () => { this.page += by; this.render(); this.pager.querySelector(by > 0 ? ".on" : ".back").focus(); };
      const first = this.page * this.pageSize;
      this.pager.replaceChildren(
        make("button", { type: "button", class: "back", disabled: this.page === 0, click: turn(-1) }, "Back"),
        make("span", {}, `${number(first + 1)} to ${number(Math.min(first + this.pageSize, this.count))} of ${number(this.count)}`),
        make("button", { type: "button", class: "on", disabled: this.page >= pages - 1, click: turn(1) }, "More"));
    }
  }
  const text = (title, get, words) => ({ title, words, value: get, cell: (row) => String(get(row) ?? "–") });
  const figure = (title, get, words, show = number) => ({ title, words, numeric: true, value: get, cell: (row) => show(get(row)) });
  const amount = (title, get, words) => ({ ...figure(title, get, words, loss), value: (row) => weighty(get(row)) });

  function shareBar(values, whole, label) {
    const bar = make("span", { class: "share", role: "img", "aria-label": label });
    for (const [kind, value] of values) {
      const piece = make("span", kind.startsWith("#") ? {} : { class: `paid-${kind}` });
      if (kind.startsWith("#")) piece.style.background = kind;
      piece.style.width = `${whole > 0 ? Math.max(0, (100 * (value ?? 0)) / whole) : 0}%`;
      bar.append(piece);
    }
    return bar;
  }
  function changeCell(value) {
    const sign = value === null || value === undefined || !value ? "" : value > 0 ? "more" : "less";
    return make("span", { class: sign || null }, value > 0 ? `+${number(value)}` : number(value));
  }

  // -- marks of fates -----------------------------------------------------------------------------------------------

  const signOf = Object.fromEntries(fates.map((fate) => [fate.fate, fate]));
  function mark(fate, x, y, r, line) {
    const sign = signOf[fate], paint = sign.colour;
    const path = {
      cross: `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`,
      plus: `M${x - r} ${y}H${x + r}M${x} ${y - r}V${y + r}`,
      bar: `M${x - r} ${y}H${x + r}`,
      square: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
      diamond: `M${x} ${y - r * 1.2}L${x + r * 1.2} ${y}L${x} ${y + r * 1.2}L${x - r * 1.2} ${y}z`,
      triangle: `M${x} ${y - r * 1.1}L${x + r} ${y + r * 0.8}H${x - r}z`,
      wedge: `M${x} ${y + r * 1.1}L${x + r} ${y - r * 0.8}H${x - r}z`,
    }[sign.mark];
    const filled = sign.mark === "disc" || sign.mark === "dot";
    const shape = (stroke, width, fillWith) => path
      ? draw("path", { d: path, fill: "none", stroke, "stroke-width": width })
      : draw("circle", { cx: x, cy: y, r: sign.mark === "dot" ? r * 0.5 : r, fill: fillWith, stroke, "stroke-width": width });
    return draw("g", { "data-fate": fate },
      shape("#000", line * 2.6, filled ? "#000" : "none"),
      filled ? draw("circle", { cx: x, cy: y, r: sign.mark === "dot" ? r * 0.5 : r, fill: paint, stroke: "#fff", "stroke-width": line * 0.7 }) : shape(paint, line * 1.4, "none"));
  }
  const markIcon = (fate) => draw("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, mark(fate, 8, 8, 5, 1.2));
  const fateCell = (fate) => make("span", {}, markIcon(fate), signOf[fate].title);

  // -- the image ----------------------------------------------------------------------------------------------------

  const views = range(Math.max(1, data.drawn_sides)).map((side) => {
    const layers = Object.fromEntries(["image", "grid", "boxes", "labels", "dots"].map((name) => [name, draw("g")]));
    layers.labels.setAttribute("pointer-events", "none");
    layers.grid.setAttribute("pointer-events", "none");
    const svg = draw("svg", { tabindex: "0", role: "group", "aria-describedby": "keys" }, draw("defs"), ...Object.values(layers));
    const node = make("figure", {}, other ? make("figcaption", {}, data.drawn_sides > 1 ? `Candidates of ${data.sides[side]}` : "") : null, svg);
    return { side, svg, layers, node };
  });
  byId("views").replaceChildren(...views.map((view) => view.node));
  const shapeOf = (image) => { const [h, w] = data.shapes[image] || [1, 1]; return { w: w || 1, h: h || 1 }; };
  function scaleOf(svg) {
    const width = svg.clientWidth || 600, height = svg.clientHeight || 400;
    return Math.max(state.view.w / width, state.view.h / height);
  }
  const activeObject = () => state.hovered ?? state.object;

  function showImage(image) {
    state.image = image;
    const { w, h } = shapeOf(image);
    state.view = { x: 0, y: 0, w, h };
    for (const view of views) {
      const jpeg = pictureOf(image);
      const ground = draw("rect", { x: 0, y: 0, width: w, height: h, fill: "#3a414d" });
      view.layers.image.replaceChildren(ground, jpeg
        ? draw("image", { x: 0, y: 0, width: w, height: h, preserveAspectRatio: "none", href: `data:image/jpeg;base64,${jpeg}` })
        : draw("text", { x: w / 2, y: h / 2, "text-anchor": "middle", "font-size": h / 20 }, "picture left out"));
      const many = objectsOf[image].length;
      view.svg.setAttribute("aria-label", `Image ${imageNumber(image)} with ${counted(many, "labelled object")}`);
      view.layers.boxes.replaceChildren(...[...objectsOf[image]]
        .sort((a, b) => objects.w[b] * objects.h[b] - objects.w[a] * objects.h[a])
        .map((row) => objectShape(row, many <= TABBABLE)));
    }
    byId("number").value = imageNumber(image);
    byId("of").textContent = `(${number(image + 1)} of ${number(size(images))})`;
    byId("path").textContent = images.path?.[image] ?? "";
    byId("previous").disabled = image === 0;
    byId("next").disabled = image >= size(images) - 1;
  }
  function outline(row, attributes) {
    const { x1, y1, x2, y2, w, h, theta } = objects;
    const shape = { "vector-effect": "non-scaling-stroke", ...attributes };
    if (!theta) return draw("rect", { x: x1[row], y: y1[row], width: Math.max(0, x2[row] - x1[row]), height: Math.max(0, y2[row] - y1[row]), ...shape });
    const cx = (x1[row] + x2[row]) / 2, cy = (y1[row] + y2[row]) / 2;
    return draw("rect", {
      x: cx - w[row] / 2, y: cy - h[row] / 2, width: w[row], height: h[row],
      transform: `rotate(${(theta[row] * 180) / Math.PI} ${cx} ${cy})`, ...shape,
    });
  }
  function objectShape(row, tabbable) {
    const lonely = objects.positives[row] === 0;
    const enter = () => { if (!dragging) hover(row); };
    const pick = () => select({ object: row, announce: true });
    return draw("g", {
      class: `object${lonely ? " lonely" : ""}`, role: "button", tabindex: tabbable ? "0" : "-1", "data-row": row,
      "aria-label": `${nameOf(row)}, ${counted(objects.positives[row], "positive")}, loss ${loss(objects.loss[row])}`,
      mouseenter: enter, mouseleave: () => hover(null), focus: enter, blur: () => hover(null), click: () => { if (!dragged) pick(); },
      keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } },
    }, outline(row, { class: "under", "stroke-width": 4 }), outline(row, { class: "box", "stroke-width": 2, "stroke-dasharray": lonely ? "5 4" : null }));
  }
  const nameOf = (row) => `object ${objects.object[row]}, ${objects.class[row]}, ${number(Math.round(objects.w[row]))} by ${number(Math.round(objects.h[row]))} px`;

  function applyView() {
    const { x, y, w, h } = state.view;
    for (const view of views) view.svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
    renderGrid();
    renderLabels();
    renderDots();
  }
  function renderGrid() {
    const { w, h } = shapeOf(state.image);
    for (const view of views) {
      const unit = scaleOf(view.svg), id = (stride) => `grid-${view.side}-${stride}`;
      view.svg.querySelector("defs").replaceChildren(...[...state.grids].map((stride) => draw("pattern",
        { id: id(stride), width: stride, height: stride, patternUnits: "userSpaceOnUse" },
        draw("path", { d: `M${stride} 0H0V${stride}`, fill: "none", stroke: levelColour(stride), "stroke-width": unit * 1.2 }))));
      view.layers.grid.replaceChildren(...[...state.grids].map((stride) =>
        draw("rect", { x: 0, y: 0, width: w, height: h, fill: `url(#${id(stride)})`, opacity: 0.75 })));
    }
  }
  const levelColour = (stride) => LEVEL_COLOURS[Math.max(0, strides.indexOf(stride)) % LEVEL_COLOURS.length];

  function renderLabels() {
    const active = activeObject();
    for (const view of views) {
      const unit = scaleOf(view.svg), many = objectsOf[state.image].length > 30;
      const named = many ? objectsOf[state.image].filter((row) => row === active) : objectsOf[state.image];
      view.layers.labels.replaceChildren(...named.map((row) => draw("text", {
        x: objects.x1[row] + 2 * unit, y: objects.y1[row] > 14 * unit ? objects.y1[row] - 4 * unit : objects.y1[row] + 13 * unit,
        "font-size": 12 * unit, "stroke-width": 3 * unit, opacity: objectPasses(row) ? 1 : 0.3,
      }, `${objects.object[row]} ${objects.class[row]}`)));
      for (const label of view.layers.labels.children) label.style.fontSize = `${12 * unit}px`;
      for (const shape of view.layers.boxes.children) {
        const row = Number(shape.dataset.row);
        shape.classList.toggle("chosen", row === state.object);
        shape.classList.toggle("faded", !objectPasses(row));
        shape.classList.toggle("rival", state.candidate !== null && state.candidate.other === objects.object[row]);
        shape.setAttribute("aria-pressed", String(row === state.object));
      }
    }
  }
  function renderDots() {
    const row = activeObject();
    for (const view of views) {
      const unit = scaleOf(view.svg), layer = view.layers.dots, drawn = [];
      if (row !== null && objects.image[row] === state.image) drawn.push(...dotsOf(row, view.side, unit));
      if (state.background !== null && view.side === 0) drawn.push(...backgroundShape(state.background, unit));
      layer.setAttribute("pointer-events", state.hovered === null ? "auto" : "none");
      layer.replaceChildren(...drawn);
    }
  }
  function dotsOf(row, side, unit) {
    const drawn = [], list = candidatesOf(row, side) || [];
    if (state.found) for (const one of list) if (one.found_x1 !== undefined) drawn.push(foundBox(one, unit, 1));
    // What learns is drawn last, on top.
    for (const one of [...list].sort((a, b) => (a.fate === "positive") - (b.fate === "positive"))) {
      if (one.x === null || one.x === undefined) continue;
      const r = (3.6 + 1.3 * Math.max(0, strides.indexOf(one.stride))) * unit;
      const dot = mark(one.fate, one.x, one.y, r, unit);
      dot.prepend(draw("title", {}, `${signOf[one.fate].title}, stride ${one.stride}`));
      drawn.push(dot);
    }
    const one = state.candidate;
    if (one !== null && one.side === side) {
      if (one.found_x1 !== undefined) drawn.push(foundBox(one, unit, 2.4));
      if (one.prior_w && one.x !== null) drawn.push(draw("rect", {
        x: one.x - one.prior_w / 2, y: one.y - one.prior_h / 2, width: one.prior_w, height: one.prior_h,
        fill: "none", stroke: "#fff", "stroke-width": 1.5 * unit, "stroke-dasharray": `${3 * unit} ${3 * unit}` }));
      if (one.x !== null && one.x !== undefined) drawn.push(draw("circle", { cx: one.x, cy: one.y, r: 11 * unit, fill: "none", stroke: "#ffd54a", "stroke-width": 2.5 * unit }));
    }
    return drawn;
  }
  const foundBox = (one, unit, width) => draw("rect", {
    class: "found", x: Math.min(one.found_x1, one.found_x2), y: Math.min(one.found_y1, one.found_y2),
    width: Math.abs(one.found_x2 - one.found_x1), height: Math.abs(one.found_y2 - one.found_y1),
    fill: "none", stroke: "#5ff0c0", "stroke-width": width * unit, "stroke-dasharray": `${5 * unit} ${3 * unit}` });
  function backgroundShape(row, unit) {
    if (background.image[row] !== state.image) return [];
    const { x1, y1, x2, y2 } = background;
    return [
      draw("rect", { class: "suspect", x: Math.min(x1[row], x2[row]), y: Math.min(y1[row], y2[row]), width: Math.abs(x2[row] - x1[row]), height: Math.abs(y2[row] - y1[row]), fill: "none", stroke: "#ff5cf4", "stroke-width": 2.5 * unit, "stroke-dasharray": `${6 * unit} ${4 * unit}` }),
      background.x ? draw("circle", { cx: background.x[row], cy: background.y[row], r: 4 * unit, fill: "#ff5cf4", stroke: "#fff", "stroke-width": unit }) : null,
    ].filter(Boolean);
  }

  function zoom(factor, centre) {
    const { w: width } = shapeOf(state.image), view = state.view;
    const w = Math.min(width * 1.5, Math.max(width / 60, view.w / factor)), actual = view.w / w, h = view.h / actual;
    const at = centre || { x: view.x + view.w / 2, y: view.y + view.h / 2 };
    state.view = { x: at.x - (at.x - view.x) / actual, y: at.y - (at.y - view.y) / actual, w, h };
    applyView();
  }
  function zoomTo(x1, y1, x2, y2) {
    const { w, h } = shapeOf(state.image), side = Math.max((x2 - x1) / w, (y2 - y1) / h) * 3;
    const share = Math.min(1, Math.max(side, 0.12));
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    state.view = {
      x: clamp((x1 + x2) / 2 - (w * share) / 2, w - w * share), y: clamp((y1 + y2) / 2 - (h * share) / 2, h - h * share),
      w: w * share, h: h * share,
    };
  }
  let dragging = null, dragged = false;
  const pointAt = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  for (const { svg } of views) {
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, pointAt(svg, event));
    }, { passive: false });
    svg.addEventListener("dblclick", (event) => zoom(1.8, pointAt(svg, event)));
    svg.addEventListener("pointerdown", (event) => { dragging = { x: event.clientX, y: event.clientY, view: { ...state.view } }; dragged = false; });
    svg.addEventListener("pointermove", (event) => {
      if (!dragging) return;
      const dx = event.clientX - dragging.x, dy = event.clientY - dragging.y;
      if (!dragged && Math.hypot(dx, dy) < 4) return;
      if (!dragged) { dragged = true; svg.setPointerCapture(event.pointerId); svg.classList.add("moving"); }
      const unit = scaleOf(svg);
      state.view = { ...state.view, x: dragging.view.x - dx * unit, y: dragging.view.y - dy * unit };
      applyView();
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { dragging = null; svg.classList.remove("moving"); });
    svg.addEventListener("keydown", imageKey);
  }
  function imageKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { w, h } = state.view;
    const pan = { ArrowLeft: [-w / 8, 0], ArrowRight: [w / 8, 0], ArrowUp: [0, -h / 8], ArrowDown: [0, h / 8] }[event.key];
    const act = pan ? () => { state.view = { ...state.view, x: state.view.x + pan[0], y: state.view.y + pan[1] }; applyView(); }
      : { "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, n: () => turn(1), p: () => turn(-1), Escape: () => select({ object: null }) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  function fit() { const { w, h } = shapeOf(state.image); state.view = { x: 0, y: 0, w, h }; applyView(); }
  function turn(by) {
    const image = Math.max(0, Math.min(size(images) - 1, state.image + by));
    if (image !== state.image) select({ image, announce: true });
  }
  function hover(row) {
    if (state.hovered === row) return;
    state.hovered = row;
    state.candidate = null;
    renderLabels();
    renderDots();
    renderDetails();
  }

  // -- choosing -----------------------------------------------------------------------------------------------------

  /* Shows an image, and in it an object or a background candidate; `near` moves the view there. */
  function select({ image, object = null, suspect = null, near = false, announce = false }) {
    const to = object !== null ? objects.image[object] : suspect !== null ? background.image[suspect] : image ?? state.image;
    Object.assign(state, { object, background: suspect, hovered: null, candidate: null });
    const moved = to !== state.image || !state.view;
    if (moved) showImage(to);
    if (near && object !== null) zoomTo(objects.x1[object], objects.y1[object], objects.x2[object], objects.y2[object]);
    if (near && suspect !== null) zoomTo(background.x1[suspect], background.y1[suspect], background.x2[suspect], background.y2[suspect]);
    applyView();
    renderDetails();
    for (const listing of listings) listing.mark();
    for (const button of document.querySelectorAll(".gallery button")) button.setAttribute("aria-current", String(Number(button.dataset.row) === state.object && button.dataset.row !== undefined));
    if (announce || near) byId("live").textContent = spoken();
    if (near) byId("stage").scrollTop = 0;
    if ((near || announce) && byId("views").getBoundingClientRect().bottom < 120) byId("stage").scrollIntoView({ block: "start" });
    remember();
  }
  function spoken() {
    if (state.object !== null) return `Image ${imageNumber(state.image)}, ${nameOf(state.object)}. ${learning(state.object)}`;
    if (state.background !== null) return `Image ${imageNumber(state.image)}, unlabelled ${background.class[state.background]}.`;
    return `Image ${imageNumber(state.image)}, ${counted(objectsOf[state.image].length, "object")}.`;
  }
  function remember() {
    const object = state.object === null ? "" : `&object=${objects.object[state.object]}`;
    try { history.replaceState(null, "", `#image=${imageNumber(state.image)}${object}`); } catch { /* a viewer that forbids it */ }
  }
  function recall() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!wanted.has("image")) return false;
    const image = images.image.indexOf(Number(wanted.get("image")));
    if (image < 0) return false;
    const row = wanted.has("object") ? rowAt(image, Number(wanted.get("object"))) : undefined;
    select(row === undefined ? { image } : { object: row, near: true });
    return true;
  }

  // -- details of what is chosen ------------------------------------------------------------------------------------

  function learning(row) {
    const held = objects.positives[row];
    if (!held) return "No candidate learns from it: its label teaches nothing.";
    const levels = strides.map((stride) => [stride, Object.keys(objects).filter((name) => name === `positives_s${stride}` || name.endsWith(`/positives_s${stride}`))
      .reduce((sum, name) => sum + objects[name][row], 0)]).filter(([, count]) => count > 0);
    const where = levels.length ? `: ${levels.map(([stride, count]) => `${number(count)} at stride ${stride}`).join(", ")}` : "";
    return `${counted(held, "candidate")} ${held === 1 ? "learns" : "learn"} from it${where}.`;
  }
  function renderDetails() {
    const box = byId("details"), row = activeObject();
    if (row !== null) box.replaceChildren(...objectDetails(row));
    else if (state.background !== null) box.replaceChildren(...suspectDetails(state.background));
    else box.replaceChildren(...imageDetails(state.image));
  }
  function imageDetails(image) {
    const heading = make("h2", {}, `Image ${imageNumber(image)}`);
    if (data.task === "images") {
      const right = images.label ? images.label[image] === images.found_label[image] : images.class[image] === images.found_class[image];
      return [heading, make("p", { class: "say" }, `Labelled ${images.class[image]}; the model says ${images.found_class[image]} (probability ${number(images.score[image], 3)})${right ? "" : ", which is another class"}. It adds ${loss(images.loss[image])} to the loss.`)];
    }
    const rows = objectsOf[image], lonely = rows.filter((row) => objects.positives[row] === 0).length;
    return [heading, make("p", { class: "say" },
      `${counted(rows.length, "labelled object")}${lonely ? `, ${number(lonely)} of which no candidate learns from (red, dashed)` : ""}. The image adds ${loss(images.loss[image])} to the loss; ${loss(images.loss_background[image])} of it is paid by background, where nothing is labelled.`),
    make("p", {}, rows.length ? "Point at an object to see its candidates; click it to keep them." : "Nothing is labelled here: all candidates are background.")];
  }
  function suspectDetails(row) {
    const near = rowAt(background.image[row], background.nearest_object[row]);
    return [
      make("h2", {}, `Background: ${background.class[row]}, score ${number(background.score[row], 3)}`),
      make("p", { class: "say" }, `The model finds ${background.class[row]} in the pink dashed box, but no object has this candidate. That adds ${loss(background.loss[row])} to the loss.`),
      near === undefined ? make("p", {}, "No object is labelled in this image.")
        : make("p", {}, `Nearest label: `, make("button", { type: "button", class: "plain", click: () => select({ object: near, announce: true }) }, `object ${background.nearest_object[row]} (${background.nearest_class[row]})`),
          `, overlap ${number(background.nearest_overlap[row], 3)}, ${number(background.nearest_distance[row], 3)} px away.`),
    ];
  }
  function objectDetails(row) {
    const every = [...new Set([...terms, ...(other?.terms || []).map((of) => of.term)])];
    const pays = every.filter((term) => (objects[term] || other?.objects[term]) && (!state.term || term === state.term));
    const whole = objects.loss[row];
    const nodes = [
      make("h2", {}, `Image ${imageNumber(objects.image[row])}, object ${objects.object[row]}: ${objects.class[row]}, ${number(Math.round(objects.w[row]))} × ${number(Math.round(objects.h[row]))} px (${objects.size[row]})`),
      make("p", { class: `say${objects.positives[row] ? "" : " lonely"}` }, `${learning(row)} It adds ${loss(whole)} to the loss${data.total ? ` (${percent(whole, data.total)} of all)` : ""}.`),
    ];
    const counts = shown.map((fate) => [fate, objects[`fate/${fate.fate}`]?.[row] ?? 0]).filter(([, count]) => count);
    const all = counts.reduce((sum, [, count]) => sum + count, 0);
    if (all) nodes.push(
      make("h3", {}, `What became of its ${counted(all, "candidate")}`),
      shareBar(counts.map(([fate, count]) => [fate.colour, count]), all, counts.map(([fate, count]) => `${count} ${fate.title}`).join(", ")),
      make("ul", { class: "keys" }, counts.map(([fate, count]) => make("li", { title: fate.words }, markIcon(fate.fate), ` ${number(count)} ${fate.title}`))));
    if (pays.length) nodes.push(make("h3", {}, "What it pays"), payTable(row, pays, whole));
    for (const view of views) nodes.push(candidateTable(row, view.side));
    return nodes;
  }
  function payTable(row, pays, whole) {
    const theirs = other?.objects;
    const columns = [
      text("term", (term) => term),
      { title: "share", cell: (term) => shareBar([["objects", objects[term]?.[row]]], whole, percent(objects[term]?.[row] ?? 0, whole)) },
      amount(other ? data.sides[0] : "loss", (term) => objects[term]?.[row]),
    ];
    if (theirs) columns.push(
      amount(data.sides[1], (term) => theirs[term]?.[row]),
      { title: "difference", numeric: true, cell: (term) => changeCell((objects[term]?.[row] ?? 0) - (theirs[term]?.[row] ?? 0)) });
    const listing = new Listing({ caption: "Loss of this object by term", quiet: true, columns, rows: () => pays });
    listing.render();
    return listing.node;
  }
  function candidateTable(row, side) {
    const found = candidatesOf(row, side), named = other && data.drawn_sides > 1 ? ` of ${data.sides[side]}` : "";
    const heading = make("h3", {}, `Candidates${named}`);
    if (found === null) return make("div", {}, heading, make("p", {}, "Left out of this report for room."));
    const has = (name) => found.some((one) => one[name] !== null && one[name] !== undefined);
    const column = (name, title, words, show) => (has(name) ? figure(title, (one) => one[name] ?? null, words, show) : null);
    const sides = ["left", "top", "right", "bottom"];
    const columns = [
      { title: "fate", words: "Why it learns from the object or not", value: (one) => signOf[one.fate].title, cell: (one) => fateCell(one.fate) },
      parts.length > 1 && !state.part ? text("prediction", (one) => one.part) : null,
      column("rank", "rank", "Place among the object's candidates, from 0"),
      column("stride", "stride", "Pixels between neighbouring candidates of its level"),
      strides.length ? null : column("candidate", "query", "Number of the query"),
      column("score", "score", "Probability that the model gives to the object's class", (value) => number(value, 3)),
      column("overlap", "overlap", "Of its box with the labelled box, 0 to 1", (value) => number(value, 3)),
      column("metric", "metric", "What candidates are ranked by", (value) => number(value, 3)),
      column("loss", "loss", "What the object pays at this candidate", (value) => number(value, 3)),
      column("gradient", "gradient", "How strongly this candidate is pushed", (value) => number(value, 3)),
      found.some((one) => (one.other ?? -1) >= 0) ? { title: "has it now", words: "The object that took it", cell: (one) => rival(row, one) } : null,
      has("found_left") ? { title: "edges, found → wanted", line: true, words: "Distance to left, top, right and bottom side, in strides", cell: (one) => (one.found_left === null || one.found_left === undefined ? "" : sides.map((of) => `${number(one[`found_${of}`], 2)}→${number(one[`wanted_${of}`], 2)}`).join(", ") + (one.clipped ? " (out of reach)" : "")) } : null,
    ].filter(Boolean);
    const listing = new Listing({
      caption: `Candidates${named}: why each learns or does not`, quiet: true, columns, rows: () => found, pageSize: 16,
      none: "No candidate passes the filters.", pick: (one) => point(one, side), hover: (one) => point(one, side),
      label: (one) => `candidate ${one.candidate}: ${signOf[one.fate].title}`,
    });
    listing.render();
    return make("div", { class: "candidates" }, heading, listing.node);
  }
  function rival(row, one) {
    if ((one.other ?? -1) < 0) return "";
    const taker = rowAt(objects.image[row], one.other);
    if (taker === undefined) return String(one.other);
    return make("button", { type: "button", class: "plain", click: () => select({ object: taker, announce: true }) }, `object ${one.other} (${objects.class[taker]})`);
  }
  function point(one, side) {
    state.candidate = one ? { ...one, side } : null;
    renderLabels();
    renderDots();
  }

  // -- panels -------------------------------------------------------------------------------------------------------

  const listings = [], panels = [];
  function listing(options) { const made = new Listing(options); listings.push(made); return made; }
  function panel(id, title, build, counts) { panels.push({ id, title, build, counts, node: null }); }

  function placeColumns(columns) {
    return [{ title: "image", words: "Number of the image", value: (row) => columns.image[row], cell: (row) => `image ${imageNumber(columns.image[row])}` }];
  }
  const objectColumns = () => [
    { title: "object", words: "Image and place of the label in it", value: (row) => objects.image[row] * 1e6 + objects.object[row], cell: (row) => `${imageNumber(objects.image[row])} / ${objects.object[row]}` },
    text("class", (row) => objects.class[row]),
    figure("w", (row) => Math.round(objects.w[row]), "Width, px of the network's input"),
    figure("h", (row) => Math.round(objects.h[row]), "Height, px"),
    text("size", (row) => objects.size[row], "Small: side below 32 px; large: from 96 px"),
    figure("positives", (row) => objects.positives[row], "Candidates that learn from it"),
    ...(objects["fate/lost"] ? [figure("lost", (row) => objects["fate/lost"][row], "Candidates that another object took")] : []),
    amount(state.term || "loss", (row) => objects[lossColumn()][row], "What it adds to the loss"),
    figure("gradient", (row) => objects.gradient[row], "How strongly its candidates are pushed"),
  ];

  panel("overview", "Overview", (node) => {
    const whole = data.terms.reduce((sum, row) => sum + Math.max(0, row.loss ?? 0), 0);
    const rows = () => data.terms.filter((row) => !state.term || row.term === state.term);
    const parted = data.task === "objects";
    const made = listing({
      caption: "What the loss is made of", rows, columns: [
        { title: "term", value: (row) => row.term, cell: (row) => make("span", {}, row.term, make("span", { class: "words-of" }, row.words)) },
        { title: "who pays", cell: (row) => shareBar([["objects", row.objects], ["background", row.background], ["images", row.images]], whole, `objects ${percent(row.objects, whole)}, background ${percent(row.background, whole)}, whole images ${percent(row.images, whole)} of the loss`) },
        amount("loss", (row) => row.loss, "Gain-weighted, as the trainer sums it"),
        { ...figure("share", (row) => row.loss), cell: (row) => percent(row.loss, whole) },
        figure("gain", (row) => row.gain, "Factor that the recipe gives to the term"),
        figure("gradient", (row) => row.gradient, "How strongly the term pushes the raw outputs"),
        ...(data.terms.some((row) => row.not_finite) ? [figure("not finite", (row) => row.not_finite, "Parts that are infinite or undefined")] : []),
      ],
    });
    node.append(made.node);
    if (parted) node.append(make("ul", { class: "keys" },
      [["objects", "paid by labelled objects"], ["background", "paid by background: candidates without an object"], ["images", "paid by images as a whole"]].map(([kind, words]) =>
        make("li", {}, make("span", { class: `swatch paid-${kind}` }), words))));
    for (const [by, title] of [["class", "By class"], ["size", "By size"], ["level", "By level of the pyramid"]]) {
      if (data.groups[by]?.length) node.append(make("h3", {}, title), groupListing(by, title).node);
    }
  });
  function groupListing(by, title) {
    const key = by === "level" ? "stride" : by, rows = data.groups[by];
    const value = (row) => (state.term && row[state.term] !== undefined ? row[state.term] : row.loss);
    const most = () => Math.max(...rows.map((row) => value(row) ?? 0), 0);
    const optional = (name, label, words, show) => (rows[0][name] === undefined ? [] : [figure(label, (row) => row[name], words, show)]);
    return listing({
      caption: title, quiet: true, rows: () => (by === "class" && state.klass ? rows.filter((row) => row.class === state.klass) : rows), columns: [
        text(by === "level" ? "stride" : by, (row) => row[key]),
        ...optional("objects", "objects"), ...optional("without_positive", "learn nothing", "Objects without a positive"),
        ...optional("positives_mean", "positives each", "Mean number of candidates that learn from one object", (number_) => number(number_, 3)),
        ...optional("pairs", "pairs", "Candidates that learn here"), ...optional("overlap_mean", "mean overlap", null, (number_) => number(number_, 3)),
        ...optional("score_mean", "mean score", null, (number_) => number(number_, 3)), ...optional("clipped", "out of reach", "Pairs with a side beyond the head's bins"),
        { title: "share", cell: (row) => shareBar([["objects", value(row)]], most(), `loss ${loss(value(row))}`) },
        amount("loss", value), ...optional("loss_mean", "loss each", "Mean loss of one object"),
      ],
    });
  }

  panel("gallery", "Gallery", (node) => {
    const box = make("div");
    node.append(make("p", {}, "The worst at a glance; the tables list all. Filters apply."), box);
    return () => {
      const rows = rowsOf(objects).filter(objectPasses), by = objects[lossColumn()];
      const dear = [...rows].sort((a, b) => weighty(by[b]) - weighty(by[a])).slice(0, GALLERY);
      const lonely = rows.filter((row) => objects.positives[row] === 0).slice(0, GALLERY);
      const shownImages = rowsOf(images).filter(imagePasses).sort((a, b) => weighty(images.loss[b]) - weighty(images.loss[a])).slice(0, GALLERY);
      box.replaceChildren(...[
        ["Objects that cost most", dear.map(objectCard)], ["Objects that no candidate learns from", lonely.map(objectCard)],
        ["Images that cost most", shownImages.map(imageCard)],
      ].filter(([, cards]) => cards.length).flatMap(([title, cards]) => [make("h3", {}, title), make("ul", { class: "gallery" }, cards)]));
    };
  });
  function crop(image, x, y, w, h, shapes) {
    const whole = shapeOf(image), jpeg = pictureOf(image);
    return draw("svg", { viewBox: `${x} ${y} ${w} ${h}`, "aria-hidden": "true" }, jpeg
      ? draw("image", { x: 0, y: 0, width: whole.w, height: whole.h, preserveAspectRatio: "none", href: `data:image/jpeg;base64,${jpeg}` }) : null, shapes);
  }
  function objectCard(row) {
    const { x1, y1, x2, y2 } = objects, side = Math.max(x2[row] - x1[row], y2[row] - y1[row], 8) * 1.5;
    const picture = crop(objects.image[row], (x1[row] + x2[row] - side) / 2, (y1[row] + y2[row] - side) / 2, side, side,
      outline(row, { fill: "none", stroke: objects.positives[row] ? "#ffd54a" : "#ff5c4d", "stroke-width": 2 }));
    return make("li", {}, make("button", { type: "button", "data-row": row, "aria-current": String(row === state.object), click: () => select({ object: row, near: true }) },
      picture, make("span", {}, objects.class[row]), make("span", { class: "quiet" }, ` loss ${loss(objects[lossColumn()][row])}, ${counted(objects.positives[row], "positive")}`)));
  }
  function imageCard(image) {
    const { w, h } = shapeOf(image);
    const about = data.task === "images" ? `${images.class[image]}, found ${images.found_class[image]}` : `image ${imageNumber(image)}`;
    return make("li", {}, make("button", { type: "button", click: () => select({ image, announce: true }) },
      crop(image, 0, 0, w, h, []), make("span", {}, about), make("span", { class: "quiet" }, ` loss ${loss(images.loss[image])}`)));
  }

  panel("findings", "Findings", (node) => {
    node.append(make("p", {}, "What deserves a look, errors first. A finding with a place shows it in the image."));
    const of = (row) => data.findings[row];
    const made = listing({
      caption: "Findings", quiet: true, rows: () => rowsOf({ all: data.findings }).filter(findingPasses), none: "Nothing was found.",
      columns: [
        { title: "what", value: (row) => of(row).title, cell: (row) => of(row).title },
        { title: "kind", value: (row) => ["error", "warning", "note"].indexOf(of(row).severity), cell: (row) => make("span", { class: `severity-${of(row).severity}` }, of(row).severity) },
        { title: "finding", value: (row) => of(row).message, cell: (row) => make("span", {}, of(row).message, make("span", { class: "words-of" }, of(row).words)) },
      ],
      label: (row) => `${of(row).title}: ${of(row).message}`,
      pick: (row) => {
        const { image, object } = of(row), at = object === null ? undefined : rowAt(image, object);
        if (at !== undefined) select({ object: at, near: true });
        else if (image !== null) select({ image, announce: true });
      },
      current: (row) => of(row).object !== null && state.object !== null && rowAt(of(row).image, of(row).object) === state.object,
    });
    node.append(made.node);
  }, () => data.findings.reduce((sum, finding) => sum + finding.count, 0));

  if (size(objects)) panel("objects", "Objects", (node) => {
    node.append(make("p", {}, "Every labelled object. Sort by a column's heading; pick a row to see the object and its candidates in the image."));
    const made = listing({
      caption: "Objects", quiet: true, columns: objectColumns(), rows: () => rowsOf(objects).filter(objectPasses), none: "No object passes the filters.",
      pick: (row) => select({ object: row, near: true }), current: (row) => row === state.object, label: (row) => `image ${imageNumber(objects.image[row])}, ${nameOf(row)}`,
    });
    made.sort = made.columns.length - 2;
    node.append(made.node);
    return () => made.setColumns(objectColumns());
  }, () => size(objects));

  if (size(background)) panel("background", "Background", (node) => {
    node.append(make("p", {}, "Candidates without an object that cost most: the model believes in something that is not labelled. A high score far from every label may be a missing label."));
    const made = listing({
      caption: "Background", quiet: true, rows: () => rowsOf(background).filter(backgroundPasses), none: "Nothing passes the filters.",
      columns: [...placeColumns(background),
        text("found", (row) => background.class[row], "The class that the model believes in"),
        figure("score", (row) => background.score[row], "How sure the model is", (value) => number(value, 3)), amount("loss", (row) => background.loss[row]),
        text("nearest label", (row) => (background.nearest_object[row] < 0 ? "none" : `${background.nearest_object[row]} (${background.nearest_class[row]})`)),
        figure("overlap", (row) => background.nearest_overlap[row], "With the nearest label", (value) => number(value, 3)),
        figure("distance", (row) => background.nearest_distance[row], "Between centres, px", (value) => number(value, 3)),
        ...(background.stride ? [figure("stride", (row) => background.stride[row])] : [])],
      pick: (row) => select({ suspect: row, near: true }), current: (row) => row === state.background,
      label: (row) => `image ${imageNumber(background.image[row])}: ${background.class[row]}, score ${number(background.score[row], 3)}`,
    });
    made.sort = 3;
    node.append(made.node);
  }, () => size(background));

  panel("images", "Images", (node) => {
    const lonely = (row) => objectsOf[row].filter((of) => objects.positives[of] === 0).length;
    const path = (row) => String(images.path?.[row] ?? "").split(/[\\/]/).pop();
    const made = listing({
      caption: "Images", quiet: true, rows: () => rowsOf(images).filter(imagePasses), none: "No image passes the filters.",
      columns: [
        { title: "image", value: (row) => images.image[row], cell: (row) => `image ${imageNumber(row)}` }, text("file", path),
        ...(data.task === "images"
          ? [text("label", (row) => images.class[row]), text("found", (row) => images.found_class[row]), figure("score", (row) => images.score[row]), amount("loss", (row) => images.loss[row])]
          : [figure("objects", (row) => images.objects[row]), figure("learn nothing", lonely, "Objects without a positive"), amount("loss", (row) => images.loss[row]),
            amount("of objects", (row) => images.loss_objects[row], "Paid by its objects"), amount("of background", (row) => images.loss_background[row], "Paid where nothing is labelled")]),
      ],
      pick: (row) => select({ image: row, announce: true }), current: (row) => row === state.image, label: (row) => `image ${imageNumber(row)} ${path(row)}`,
    });
    made.sort = made.columns.findIndex((column) => column.title === "loss");
    node.append(made.node);
  }, () => size(images));

  if (other) panel("compare", "Compare", (node) => {
    const [ours, theirs] = data.sides;
    node.append(make("p", {}, `The same images and labels twice. Difference: ${ours} minus ${theirs}; above 0 means that ${ours} pays more.`));
    const columns = (first, one, two) => [...first,
      amount(ours, one), amount(theirs, two),
      { title: "difference", numeric: true, words: "Sorted by its size", value: (row) => Math.abs((one(row) ?? 0) - (two(row) ?? 0)), cell: (row) => changeCell((one(row) ?? 0) - (two(row) ?? 0)) }];
    const add = (title, options) => { const made = listing({ caption: title, quiet: true, ...options }); node.append(make("h3", {}, title), made.node); return made; };
    const by = (rows, name) => Object.fromEntries((rows || []).map((row) => [row[name], row]));
    const pair = (mine, yours, name) => { const a = by(mine, name), b = by(yours, name); return [[...new Set([...Object.keys(a), ...Object.keys(b)])], a, b]; };
    const [names, a, b] = pair(data.terms, other.terms, "term");
    add("By term", { rows: () => names.filter((name) => !state.term || name === state.term), columns: columns([text("term", (name) => name)], (name) => a[name]?.loss, (name) => b[name]?.loss) });
    const [classes, c, d] = pair(data.groups.class, other.groups.class, "class");
    const item = (row) => row?.[state.term || "loss"];
    if (classes.length) add("By class", { rows: () => classes.filter((name) => !state.klass || name === state.klass), columns: columns([text("class", (name) => name), figure(`learn nothing: ${ours}`, (name) => c[name]?.without_positive), figure(theirs, (name) => d[name]?.without_positive)], (name) => item(c[name]), (name) => item(d[name])) });
    if (size(objects)) {
      const made = add("By object", {
        rows: () => rowsOf(objects).filter(objectPasses), pick: (row) => select({ object: row, near: true }), current: (row) => row === state.object, label: (row) => `image ${imageNumber(objects.image[row])}, ${nameOf(row)}`,
        columns: columns([objectColumns()[0], text("class", (row) => objects.class[row]), figure(`positives: ${ours}`, (row) => objects.positives[row]), figure(theirs, (row) => other.objects.positives[row])],
          (row) => objects[lossColumn()][row], (row) => other.objects[lossColumn()]?.[row]),
      });
      made.sort = made.columns.length - 1;
    }
  });

  function openTab(id) {
    state.tab = id;
    for (const one of panels) {
      const open = one.id === id;
      if (open && !one.node) {
        one.node = make("div", { class: "panel", role: "tabpanel", id: `panel-${one.id}`, "aria-labelledby": `tab-${one.id}`, tabindex: "-1" });
        byId("panels").append(one.node);
        const before = listings.length;
        one.refresh = one.build(one.node) || null;
        one.listings = listings.slice(before);
        one.fresh = false;
      }
      if (one.node) one.node.hidden = !open;
      const tab = byId(`tab-${one.id}`);
      tab.setAttribute("aria-selected", String(open));
      tab.tabIndex = open ? 0 : -1;
      if (open && !one.fresh) refresh(one);
    }
  }
  function refresh(one) {
    one.refresh?.();
    for (const made of one.listings) made.render();
    one.fresh = true;
  }
  function buildTabs() {
    const tabs = byId("tabs");
    tabs.replaceChildren(...panels.map((one) => make("button", {
      type: "button", role: "tab", id: `tab-${one.id}`, "aria-controls": `panel-${one.id}`, click: () => openTab(one.id),
    }, one.counts ? `${one.title} (${number(one.counts())})` : one.title)));
    tabs.addEventListener("keydown", (event) => {
      const at = panels.findIndex((one) => one.id === state.tab), last = panels.length - 1;
      const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      openTab(panels[to].id);
      byId(`tab-${panels[to].id}`).focus();
    });
  }

  // -- headline, filters, options, words ----------------------------------------------------------------------------

  function buildCards() {
    const counts = data.counts, bad = (kind) => data.findings.filter((finding) => finding.severity === kind).reduce((sum, finding) => sum + finding.count, 0);
    const jump = (words, act) => make("button", { type: "button", class: "plain sub", click: act }, words);
    const cards = [["Loss", data.total === null ? "not finite" : number(data.total), `what training minimises, sum of ${counted(counts.images, "image")}`, data.total === null ? "bad" : ""]];
    if (other) cards.push([`Loss, ${data.sides[1]}`, loss(other.total), make("span", {}, "difference ", changeCell(data.total - other.total))]);
    if (data.task === "images") cards.push(["Right class", percent(counts.right, counts.known), `${number(counts.right)} of ${number(counts.known)} images`]);
    else {
      cards.push(["Labelled objects", number(counts.objects), `in ${counted(counts.images, "image")}`]);
      if (counts.objects) cards.push(
        ["Objects nobody learns from", number(counts.lonely), counts.lonely ? jump(`${percent(counts.lonely, counts.objects)}: show them`, () => { setFilter("fate", NO_POSITIVE); openTab("objects"); }) : "every object has a positive candidate", counts.lonely ? "bad" : "good"],
        ["Positives per object", number(counts.positives / counts.objects, 3), "candidates that learn from it, on average"]);
      cards.push(["Paid by background", percent(counts.loss_background, data.total), "of the loss; the rest is paid by objects"]);
    }
    const found = ["error", "warning", "note"].map((kind) => [bad(kind), kind]).filter(([count]) => count);
    cards.push(["Findings", number(found.reduce((sum, [count]) => sum + count, 0)), found.length ? jump(`${found.map(([count, kind]) => counted(count, kind)).join(", ")}: read them`, () => openTab("findings")) : "nothing to report",
      bad("error") ? "bad" : bad("warning") ? "warn" : ""]);
    byId("cards").replaceChildren(...cards.map(([title, value, sub, tone]) => make("div", { class: tone || null }, make("dt", {}, title), make("dd", {}, make("span", { class: "big" }, value), make("span", { class: "sub" }, sub)))));
  }

  function options(select_, choices) { select_.replaceChildren(...choices.map(([value, words]) => make("option", { value }, words))); }
  function buildFilters() {
    const classes = [...new Set([...(objects.class || []), ...(background.class || []), ...(data.task === "images" ? images.class : [])])].sort();
    options(byId("filter-class"), [["", "all classes"], ...classes.map((name) => [name, name])]);
    options(byId("filter-fate"), [["", "all fates"], ...(data.counts.lonely ? [[NO_POSITIVE, "objects without a positive"]] : []), ...shown.map((fate) => [fate.fate, fate.title])]);
    options(byId("filter-term"), [["", "the whole loss"], ...terms.map((term) => [term, term])]);
    byId("filter-fate").parentElement.hidden = !size(objects);
    for (const name of ["class", "fate", "term"]) byId(`filter-${name}`).addEventListener("change", (event) => setFilter(name, event.target.value));
    byId("filter-reset").addEventListener("click", () => { Object.assign(state, { klass: "", fate: "", term: "" }); filtered(); byId("filter-class").focus(); });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }
  function setFilter(name, value) { state[name === "class" ? "klass" : name] = value; filtered(); }
  function filtered() {
    byId("filter-class").value = state.klass;
    byId("filter-fate").value = state.fate;
    byId("filter-term").value = state.term;
    const active = Boolean(state.klass || state.fate || state.term);
    byId("filter-reset").hidden = !active;
    const passing = rowsOf(objects).filter(objectPasses).length;
    byId("filter-count").textContent = size(objects) && active ? `${number(passing)} of ${counted(size(objects), "object")}` : "";
    for (const one of panels) { one.fresh = false; for (const made of one.listings || []) made.page = 0; }
    openTab(state.tab);
    if (!state.view) return;
    applyView();
    renderDetails();
  }

  function buildOptions() {
    const check = (words, checked, act, colour) => {
      const swatch = colour ? make("span", { class: "swatch" }) : null;
      if (swatch) swatch.style.background = colour;
      const box = make("input", { type: "checkbox", change: (event) => act(event.target.checked) });
      box.checked = checked;
      return make("label", {}, box, swatch, words);
    };
    const choose = (words, choices, value, act) => {
      const box = make("select", { change: (event) => act(event.target.value) });
      options(box, choices);
      box.value = value;
      return make("label", {}, `${words} `, box);
    };
    const nodes = [];
    if (strides.length) nodes.push(make("fieldset", {}, make("legend", {}, "Grid of stride"), strides.map((stride) => check(String(stride), false, (on) => { state.grids[on ? "add" : "delete"](stride); renderGrid(); }, levelColour(stride)))));
    const redraw = () => { renderDots(); renderDetails(); };
    if (strides.length > 1) nodes.push(choose("Candidates of", [["", "all levels"], ...strides.map((stride) => [String(stride), `stride ${stride}`])], "", (value) => { state.level = value; redraw(); }));
    if (parts.length > 1) nodes.push(choose("Prediction", [["", "all"], ...parts.map((part) => [part, part])], state.part, (value) => { state.part = value; redraw(); }));
    if (size(objects)) nodes.push(check("predicted boxes", false, (on) => { state.found = on; renderDots(); }));
    byId("options").replaceChildren(...nodes);
    byId("legend").replaceChildren(...shown.map((fate) => make("li", { title: fate.words }, markIcon(fate.fate), fate.title)));
  }

  function buildWords() {
    const list = (title, rows) => [make("h3", {}, title), make("dl", {}, rows.flatMap(([name, words]) => [make("dt", {}, name), make("dd", {}, words)]))];
    const nodes = [make("h2", { id: "words-title" }, "What the words mean"), ...list("In general", [
      ["candidate", "A place of the network's output that can predict one object: a cell of a grid, with or without a prior box, or a query."],
      ["positive", "A candidate that was given to an object as its target. Only positives learn boxes; all others are taught that nothing is there."],
      ["stride", "Pixels between neighbouring cells of a level. Small strides see small objects, large strides large ones."],
      ["loss", "What training minimises. All numbers here carry their gain, so they sum to the trainer's number."],
      ["gradient", "Length of the push that the loss gives to raw outputs. What gets no push is not learned."],
      ["background", "Candidates that no object has. They pay for seeing something where nothing is labelled."],
    ])];
    if (shown.length) nodes.push(...list("Fates of candidates", shown.map((fate) => [make("span", {}, markIcon(fate.fate), ` ${fate.title}`), fate.words])));
    nodes.push(...list("Parts of the loss", [...new Map(data.terms.map((row) => [row.term.replace(/^.*\//, ""), row.words]))]));
    if (parts.length > 1) nodes.push(...list("Predictions", data.parts.map((row) => [row.part, row.words])));
    byId("words").replaceChildren(...nodes);
    byId("foot").replaceChildren(...(data.left_out.length
      ? [make("p", {}, "Left out of this file to keep it small:"), make("ul", {}, data.left_out.map((words) => make("li", {}, words)))]
      : [make("p", {}, "Nothing was left out of this file.")]), make("p", {}, "One file, no network: it can be moved, mailed and opened anywhere."));
  }

  function buildTheme() {
    const button = byId("theme"), root = document.documentElement;
    const saved = (() => { try { return localStorage.getItem("boxwright-theme"); } catch { return null; } })();
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
    if (saved === "dark" || saved === "light") root.dataset.theme = saved;
    system.addEventListener("change", name);
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem("boxwright-theme", root.dataset.theme); } catch { /* not kept */ }
      name();
    });
    name();
  }

  // -- start --------------------------------------------------------------------------------------------------------

  byId("title").textContent = data.title;
  if (data.task === "images") byId("about").textContent = "What each labelled image taught the model in one pass of the loss. Pick a row of any table.";
  buildTheme();
  buildCards();
  buildFilters();
  buildTabs();
  buildOptions();
  buildWords();
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("number").addEventListener("change", (event) => {
    const wanted = images.image.indexOf(Number(event.target.value));
    if (wanted >= 0) select({ image: wanted, announce: true });
    else event.target.value = imageNumber(state.image);
  });
  byId("zoom-in").addEventListener("click", () => zoom(1.4));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.4));
  byId("zoom-fit").addEventListener("click", fit);
  byId("stage").hidden = !size(images);
  openTab("overview");
  if (size(images)) {
    if (!recall()) {
      // The first thing to see: the image that costs most.
      const dear = rowsOf(images).reduce((best, row) => (weighty(images.loss[row]) > weighty(images.loss[best]) ? row : best), 0);
      select({ image: dear });
    }
    addEventListener("hashchange", recall);
    new ResizeObserver(() => applyView()).observe(views[0].svg);
  }
  document.documentElement.dataset.ready = "true";
})();
