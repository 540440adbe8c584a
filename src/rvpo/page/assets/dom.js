"use strict";
/*
 * Elements, numbers and tables. Texts from logs become text nodes and nothing else: no function of this page takes
 * markup.
 */
const Dom = (() => {
  const VERDICTS = ["diverging", "neglected", "noisy", "unclear", "dead", "saturated", "healthy"];
  const MARKS = { diverging: "⤱", neglected: "▼", noisy: "≈", unclear: "?", dead: "○", saturated: "▲", healthy: "✓" };
  const byId = (id) => document.getElementById(id);

  /** el("td", {class: "x", onclick: f, vars: {"--share": 0.5}}, "text", node, null); attributes are our constants. */
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  }

  function setAttribute(node, name, value) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") Object.entries(value).forEach(([key, entry]) => node.style.setProperty(key, entry));
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }

  /** The same as el, for SVG. */
  function svg(tag, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const list = (value) => (Array.isArray(value) ? value : []);
  const record = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
  const text = (value) => (value === null || value === undefined ? "" : String(value));

  /** The field of a record. The name may come from logs and be, for example, "constructor". */
  const field = (value, name) => (Object.hasOwn(record(value), name) ? value[name] : undefined);

  function number(value, digits = 2) {
    if (!isNumber(value)) return "–";
    const rounded = value.toFixed(digits);
    const shown =
      Math.abs(value) >= 1e5 || (value !== 0 && Number(rounded) === 0 && Math.abs(value) < 1e-6)
        ? value.toPrecision(3)
        : rounded;
    return (Number(shown) === 0 ? shown.replace("-", "") : shown).replace("-", "−");
  }

  const signed = (value, digits = 2) => (isNumber(value) && value > 0 ? "+" : "") + number(value, digits);
  const count = (value) => (isNumber(value) ? value.toLocaleString("en-US") : "–");

  function percent(value) {
    if (!isNumber(value)) return "–";
    const shown = 100 * value;
    return `${shown > 0 && shown < 1 ? "<1" : shown < 100 && shown > 99 ? ">99" : Math.round(shown)}%`.replace(
      "-",
      "−",
    );
  }

  const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

  /** "a, b and 3 more". */
  function names(all, most = 4) {
    if (all.length <= most) return all.join(", ");
    return `${all.slice(0, most - 1).join(", ")} and ${all.length - most + 1} more`;
  }

  /** Shorten a long name to its beginning and its end. */
  function short(name, most = 28) {
    const letters = Array.from(text(name).replace(/\s+/g, " "));
    if (letters.length <= most) return letters.join("");
    const end = Math.floor(most / 3);
    return `${letters.slice(0, most - end - 1).join("")}…${letters.slice(-end).join("")}`;
  }

  /** A number as shown to readers, with its full value for machines in <data>. */
  const data = (value, shown) => el("data", { value: isNumber(value) ? value : "" }, shown);

  /** A verdict as a word and a mark, so that it does not depend on its colour. */
  function badge(verdict) {
    const known = VERDICTS.includes(verdict) ? verdict : "unclear";
    return el(
      "span",
      { class: `badge ${known}` },
      el("span", { "aria-hidden": "true" }, MARKS[known]),
      ` ${text(verdict) || "unknown"}`,
    );
  }

  /** Fill a table. Heads are texts or nodes. The first cell of a row is its heading. */
  function fillTable(table, caption, heads, rows) {
    const head = heads.map((entry) =>
      entry instanceof Node && entry.nodeName === "TH" ? entry : el("th", { scope: "col" }, entry),
    );
    const body = rows.map((cells) =>
      el(
        "tr",
        {},
        cells.map((cell, i) => asCell(cell, i)),
      ),
    );
    table.replaceChildren(
      el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, body),
    );
    return table;
  }

  function asCell(cell, i) {
    if (cell instanceof Node && ["TD", "TH"].includes(cell.nodeName)) return cell;
    return i === 0 ? el("th", { scope: "row" }, cell) : el("td", {}, cell);
  }

  /** A cell shaded by value / scale in [-1, 1]. It also shows the number, so no reader depends on the shade. */
  function shaded(value, scale, ...children) {
    const share = isNumber(value) && scale > 0 ? Math.min(Math.abs(value) / scale, 1) : 0;
    return el("td", { class: value < 0 ? "shade negative" : "shade", vars: { "--share": share.toFixed(3) } }, children);
  }

  /** A choice between a few options: radio buttons that look like one switch. */
  function segmented(fieldset, options, chosen, onChange) {
    const legend = fieldset.querySelector("legend");
    const name = fieldset.id;
    fieldset.replaceChildren(
      legend,
      ...options.map(([value, label]) =>
        el(
          "label",
          {},
          el("input", {
            type: "radio",
            name,
            id: `${name}-${value}`,
            value,
            checked: value === chosen,
            onchange: () => onChange(value),
          }),
          el("span", {}, label),
        ),
      ),
    );
  }

  /** Fill a select with options. The old choice is kept if it still exists. */
  function fillSelect(select, options, chosen) {
    select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    select.value = options.some(([value]) => value === chosen) ? chosen : (options[0] || [""])[0];
    return select.value;
  }

  /** Choose an option of a select, or the other one if the first does not exist. */
  function fillSelectTo(select, value, other) {
    select.value = value;
    if (select.value !== value) select.value = other;
    return select.value;
  }

  /** Show or hide a section; the navigation follows. */
  function show(id, is) {
    byId(id).hidden = !is;
    return is;
  }

  /** Fill a node with notes, as a list. */
  function notes(node, entries) {
    const all = list(entries)
      .map(text)
      .filter((entry) => entry);
    node.replaceChildren(
      ...(all.length
        ? [
            el(
              "ul",
              { class: "notes" },
              all.map((entry) => el("li", {}, entry)),
            ),
          ]
        : []),
    );
  }

  /** Channels of a diagnosis. Channels that need attention come first. */
  function bySeverity(diagnosis) {
    const place = (channel) =>
      VERDICTS.includes(channel.verdict) ? VERDICTS.indexOf(channel.verdict) : VERDICTS.length;
    const correlation = (channel) => {
      const { value } = record(channel.correlation);
      return isNumber(value) ? value : 2;
    };
    return list(record(diagnosis).channels)
      .map(record)
      .sort((a, b) => place(a) - place(b) || correlation(a) - correlation(b));
  }

  return {
    VERDICTS,
    badge,
    byId,
    bySeverity,
    count,
    data,
    el,
    field,
    fillSelect,
    fillSelectTo,
    fillTable,
    isNumber,
    list,
    names,
    notes,
    number,
    percent,
    plural,
    record,
    segmented,
    shaded,
    short,
    show,
    signed,
    svg,
    text,
  };
})();
