// Draws the charts of a page, sorts and filters its tables, shows one time line at a time. Names are data: they are
// only ever set as text.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // --- charts -------------------------------------------------------------------------------------------------------
  // ast: expressions are interpreted, so that the page's policy can forbid eval
  const options = {
    ast: true, actions: false, renderer: "svg", mode: "vega-lite", config: data.config,
    tooltip: { disableDefaultStyle: true, theme: "page" },
  };
  const draw = (element, specification) => vegaEmbed(element, specification, options);

  // --- tables -------------------------------------------------------------------------------------------------------
  const keyOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (column, isNumber, sign) => (a, b) => {
    const [one, other] = [keyOf(a, column), keyOf(b, column)];
    if (one === "" || other === "") return (one === "") - (other === ""); // what is not known comes last either way
    return sign * (isNumber ? one - other : one.localeCompare(other, undefined, { numeric: true }));
  };
  const sortable = (table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", heading.textContent, { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const isNumber = heading.dataset.kind === "number";
        const before = heading.getAttribute("aria-sort");
        const order = before ? (before === "descending" ? "ascending" : "descending") : isNumber ? "descending" : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(compare(column, isNumber, order === "ascending" ? 1 : -1)));
      });
    });
  };
  const filterable = (form) => {
    const rows = [...document.getElementById(form.dataset.table).tBodies[0].rows];
    const choices = [...form.querySelectorAll("select")];
    for (const select of choices) {
      const values = new Set(rows.map((row) => keyOf(row, select.dataset.column)));
      [...values].filter((value) => value !== "").sort().forEach((value) => select.append(make("option", value, { value })));
      select.closest("label").hidden = values.size < 2;
    }
    const apply = () => {
      const wanted = form.elements.search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !(
          keyOf(row, form.elements.search.dataset.column).toLowerCase().includes(wanted) &&
          choices.every((select) => !select.value || keyOf(row, select.dataset.column) === select.value)
        );
        shown += !row.hidden;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    apply();
  };

  // --- time lines ---------------------------------------------------------------------------------------------------
  const clock = (seconds) => {
    const whole = Math.round(seconds);
    const pad = (number) => String(number).padStart(2, "0");
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60)];
    return hours ? `${hours}:${pad(minutes % 60)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };
  const datasetsOf = (channel) => {
    const windows = [], silence = [];
    channel.start.forEach((start, i) => {
      const step = { from: start / 10, to: channel.end[i] / 10 };
      step.time = `${clock(step.from)} to ${clock(step.to)}`;
      const percents = channel.p[i];
      if (percents === null) silence.push(step);
      else data.labels.forEach((label, j) => {
        const sure = channel.unsure[i] ? "abstained" : "scored";
        const p = percents[j] / 100;
        windows.push({ ...step, label, p, opacity: p * (channel.unsure[i] ? 0.4 : 1), sure });
      });
    });
    return { windows, silence };
  };
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const timeLine = (channel, duration, width) => {
    const specification = structuredClone(data.charts.time_line);
    const step = STEPS.find((step) => duration / step <= Math.max(3, width / 80)) ?? 7200;
    const given = { duration, step };
    specification.params = specification.params.map((param) => ({ ...param, value: given[param.name] }));
    specification.datasets = datasetsOf(channel);
    specification.description = `${specification.description}, ${channel.name}`;
    return specification;
  };
  const peaksTable = (channel) => {
    const table = make("table");
    const head = table.createTHead().insertRow();
    ["emotion", "most probable at", "probability", "longest stretch from", "lasts"].forEach((title) => head.append(make("th", title, { scope: "col" })));
    const body = table.createTBody();
    for (const [label, peak, probability, start, length] of channel.peaks) {
      const row = body.insertRow();
      const stretch = start === null ? ["", ""] : [clock(start), `${length.toFixed(1)} s`];
      row.append(make("th", label, { scope: "row" }));
      [clock(peak), probability.toFixed(2), ...stretch].forEach((text) => row.append(make("td", text)));
    }
    const scroll = make("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": `peaks of ${channel.name}` });
    scroll.append(table);
    return scroll;
  };
  const viewer = document.getElementById("time-line");
  const places = { title: document.getElementById("time-line-title"), body: document.getElementById("time-line-body"), back: document.getElementById("back") };
  const steps = viewer ? [...viewer.querySelectorAll("button.step")] : [];
  let views = [], current = 0;
  const show = async (number) => {
    current = number;
    const call = data.calls[number];
    views.splice(0).forEach((view) => view.finalize());
    places.title.textContent = `Time line: ${call.name}`;
    const rows = [...document.querySelectorAll("#calls tbody tr")];
    rows.forEach((row) => row.classList.toggle("shown", Number(row.dataset.call) === number));
    places.back.href = `#${rows.find((row) => Number(row.dataset.call) === number).querySelector("a").id}`;
    steps[0].disabled = number === 0;
    steps[1].disabled = number === data.calls.length - 1;
    places.body.replaceChildren();
    for (const channel of call.channels) {
      places.body.append(make("h3", channel.name));
      const facts = [channel.predicted && `mostly ${channel.predicted}`, channel.priority !== null && `priority ${channel.priority.toFixed(2)}`, `status ${channel.status}`];
      places.body.append(make("p", facts.filter(Boolean).join(", "), { class: "soft" }));
      if (channel.start.length === 0) continue;
      const chart = make("div", undefined, { class: "chart" });
      places.body.append(chart);
      const result = await draw(chart, timeLine(channel, call.duration, chart.clientWidth));
      if (current !== number) return result.finalize();
      views.push(result);
      if (channel.peaks.length) places.body.append(peaksTable(channel));
    }
    viewer.dataset.drawn = String(number);
  };
  const follow = async () => {
    const [, number] = /^#call-(\d+)$/.exec(location.hash) ?? [];
    if (number === undefined || !(number in data.calls)) return;
    await show(Number(number));
    viewer.scrollIntoView();
    places.title.focus({ preventScroll: true });
  };

  // --- all of it ----------------------------------------------------------------------------------------------------
  const start = async () => {
    document.querySelectorAll("table[data-sortable]").forEach(sortable);
    document.querySelectorAll("form[data-table]").forEach(filterable);
    for (const element of document.querySelectorAll("[data-chart]")) await draw(element, data.charts[element.dataset.chart]);
    if (viewer) {
      viewer.hidden = false;
      steps.forEach((button, i) => button.addEventListener("click", () => { location.hash = `#call-${current + (i ? 1 : -1)}`; }));
      window.addEventListener("hashchange", follow);
      await show(0);
      await follow();
    }
    document.body.dataset.drawn = "yes";
  };
  // paper has everything open
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
  start();
})();
