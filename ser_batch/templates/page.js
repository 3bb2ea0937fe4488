// Draws the charts of a page of a model.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);

  // --- charts -------------------------------------------------------------------------------------------------------
  // ast: expressions are interpreted, so that the page's policy can forbid eval
  const options = {
    ast: true, actions: false, renderer: "svg", mode: "vega-lite", config: data.config,
    tooltip: { disableDefaultStyle: true, theme: "page" },
  };
  const draw = (element, specification) => vegaEmbed(element, specification, options);

  // --- all of it ----------------------------------------------------------------------------------------------------
  const start = async () => {
    for (const element of document.querySelectorAll("[data-chart]")) await draw(element, data.charts[element.dataset.chart]);
    document.body.dataset.drawn = "yes";
  };
  start();
})();
