// One dashboard on a page: its panels in Grafana's grid, with answers of Prometheus that lie beside it as data.json.

import "@fontsource/inter/400.css";
import "@fontsource/inter/500.css";
import { ThemeContext, dateTime } from "@grafana/data";
import { setAppEvents } from "@grafana/runtime";
import { EventBusSrv } from "@grafana/data";
import { GlobalStyles, PanelChrome } from "@grafana/ui";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router-dom";
import { framesOf, theme } from "./frames.js";
import { Drawing } from "./panels.jsx";

setAppEvents(new EventBusSrv());

const [WIDTH, GAP, CELL, EDGE] = [1600, 8, 30, 16];
const COLUMN = (WIDTH - 2 * EDGE + GAP) / 24;
const box = {
  border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: "4px 8px", fontSize: 14,
  background: theme.colors.background.primary,
};

const Picker = ({ name, value }) => (
  <span style={{ display: "inline-flex", marginRight: 8 }}>
    <span style={{ ...box, background: theme.colors.background.secondary, color: theme.colors.text.secondary, borderRight: 0 }}>{name}</span>
    <span style={box}>{value} ▾</span>
  </span>
);

const Head = ({ board, shown, period }) => (
  <div style={{ padding: `12px ${EDGE}px 10px` }}>
    <div style={{ display: "flex", justifyContent: "space-between", marginBottom: 10 }}>
      <span style={{ fontSize: 18 }}>{board.title}</span>
      <span style={{ ...box, background: theme.colors.background.secondary }}>{period}</span>
    </div>
    {shown.map(([name, value]) => <Picker key={name} name={name} value={value} />)}
  </div>
);

const Page = ({ data, drawn, range }) => {
  const lowest = Math.max(...data.board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div id="page" style={{ width: WIDTH, background: theme.colors.background.canvas }}>
      <Head board={data.board} shown={data.shown} period={data.period} />
      <div style={{ position: "relative", height: lowest * (CELL + GAP) + GAP }}>
        {drawn.map(({ panel, frames }) => {
          const { x, y, w, h } = panel.gridPos;
          const [width, height] = [w * COLUMN - GAP, h * (CELL + GAP) - GAP];
          return (
            <div key={panel.id} style={{ position: "absolute", left: EDGE + x * COLUMN, top: y * (CELL + GAP), width, height }}>
              <PanelChrome title={panel.title} width={width} height={height} padding={panel.type === "table" ? "none" : "md"}>
                {(inner, high) => <Drawing {...{ panel, frames, range, width: inner, height: high, marks: data.marks }} />}
              </PanelChrome>
            </div>
          );
        })}
      </div>
    </div>
  );
};

const show = async () => {
  const name = new URLSearchParams(location.search).get("board");
  const data = await (await fetch(`/data/${name}.json`)).json();
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`))); // the width of axes is measured once
  const range = { from: dateTime(data.range.start * 1000), to: dateTime(data.range.end * 1000) };
  range.raw = { from: range.from, to: range.to };
  const drawn = await Promise.all(data.board.panels.map(async (panel) => (
    { panel, frames: await framesOf(panel, data.answers[panel.id] ?? {}, data.range) }
  )));
  createRoot(document.getElementById("root")).render(
    <BrowserRouter>
      <ThemeContext.Provider value={theme}><GlobalStyles /><Page {...{ data, drawn, range }} /></ThemeContext.Provider>
    </BrowserRouter>,
  );
  setTimeout(() => {
    const blank = [...document.querySelectorAll("canvas")].filter((canvas) => (
      !canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)
    ));
    if (blank.length) throw new Error(`${name}: ${blank.length} graphs are blank`);
  }, 5000);
};

show();
