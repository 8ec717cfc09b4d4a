// Renders one dashboard, with the Prometheus results of data/NAME.json.

import "@fontsource/inter/400.css";
import "@fontsource/inter/500.css";
import { EventBusSrv, ThemeContext, dateTime, dateTimeFormat } from "@grafana/data";
import { setAppEvents } from "@grafana/runtime";
import { GlobalStyles, PanelChrome } from "@grafana/ui";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router-dom";
import { framesOf, theme } from "./frames.js";
import { Visualization } from "./panels.jsx";

setAppEvents(new EventBusSrv());

const [WIDTH, GAP, CELL, EDGE] = [1600, 8, 30, 16];
const COLUMN = (WIDTH - 2 * EDGE + GAP) / 24;
const box = {
  border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: "4px 8px", fontSize: 14,
  background: theme.colors.background.primary,
};
const secondary = { ...box, background: theme.colors.background.secondary };

const Picker = ({ label, value }) => (
  <span style={{ display: "inline-flex", marginRight: 8 }}>
    <span style={{ ...secondary, color: theme.colors.text.secondary, borderRight: 0 }}>{label}</span>
    <span style={box}>{value} ▾</span>
  </span>
);

const format = (time, pattern) => dateTimeFormat(time * 1000, { format: pattern, timeZone: "utc" });

const Header = ({ title, pickers, range }) => (
  <div style={{ padding: `12px ${EDGE}px 10px` }}>
    <div style={{ display: "flex", justifyContent: "space-between", marginBottom: 10 }}>
      <span style={{ fontSize: 18 }}>{title}</span>
      <span style={secondary}>{format(range.start, "YYYY-MM-DD HH:mm")} to {format(range.end, "HH:mm")} UTC</span>
    </div>
    {pickers.map(([label, value]) => <Picker key={label} label={label} value={value} />)}
  </div>
);

const Panel = ({ panel, frames, range, alerts, width, height }) => (panel.type === "row" ? (
  <div style={{ fontSize: 16, fontWeight: 500, padding: "4px 0" }}>▾ {panel.title}</div>
) : (
  <PanelChrome title={panel.title} width={width} height={height} padding={panel.type === "table" ? "none" : "md"}>
    {(innerWidth, innerHeight) => (
      <Visualization {...{ panel, frames, range, alerts, width: innerWidth, height: innerHeight }} />
    )}
  </PanelChrome>
));

const Dashboard = ({ data, panels, range }) => {
  const bottom = Math.max(...data.dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div style={{ width: WIDTH, background: theme.colors.background.canvas }}>
      <Header title={data.dashboard.title} pickers={data.pickers} range={data.range} />
      <div style={{ position: "relative", height: bottom * (CELL + GAP) + GAP }}>
        {panels.map(({ panel, frames }) => {
          const { x, y, w, h } = panel.gridPos;
          const [width, height] = [w * COLUMN - GAP, h * (CELL + GAP) - GAP];
          return (
            <div key={panel.id} style={{ position: "absolute", left: EDGE + x * COLUMN, top: y * (CELL + GAP), width, height }}>
              <Panel {...{ panel, frames, range, alerts: data.alerts, width, height }} />
            </div>
          );
        })}
      </div>
    </div>
  );
};

const render = async () => {
  const name = new URLSearchParams(location.search).get("name");
  const data = await (await fetch(`/data/${name}.json`)).json();
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`))); // axis labels are measured once
  const range = { from: dateTime(data.range.start * 1000), to: dateTime(data.range.end * 1000) };
  range.raw = { from: range.from, to: range.to };
  const panels = await Promise.all(data.dashboard.panels.map(async (panel) => (
    { panel, frames: await framesOf(panel, data.results[panel.id] ?? {}, data.range) }
  )));
  createRoot(document.getElementById("root")).render(
    <BrowserRouter>
      <ThemeContext.Provider value={theme}><GlobalStyles /><Dashboard {...{ data, panels, range }} /></ThemeContext.Provider>
    </BrowserRouter>,
  );
  setTimeout(() => {
    const blank = [...document.querySelectorAll("canvas")].filter((canvas) => (
      !canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)
    ));
    if (blank.length) throw new Error(`${name}: ${blank.length} graphs are blank`);
  }, 5000);
};

render();
