// One component per panel type. Grafana exports all of them except the heatmap.

import { getFieldDisplayValues, renderMarkdown } from "@grafana/data";
import { BigValue, TimeSeries } from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";
import { useEffect, useRef } from "react";
import { identity, theme } from "./frames.js";

const NoData = ({ panel, height }) => (
  <div style={{ height, display: "grid", placeItems: "center", color: theme.colors.text.secondary }}>
    {panel.fieldConfig?.defaults.noValue ?? "No data"}
  </div>
);

const StatPanel = ({ panel, frames, width, height }) => {
  const values = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: identity, theme,
    data: frames, timeZone: "utc",
  });
  const gap = 8;
  const each = (height - gap * (values.length - 1)) / values.length;
  return (
    <div style={{ display: "flex", flexDirection: "column", gap }}>
      {values.map(({ display }) => (
        <BigValue
          key={display.title} value={display} width={width} height={each} theme={theme} colorMode={panel.options.colorMode}
          graphMode={panel.options.graphMode} textMode={panel.options.textMode} justifyMode="auto" text={panel.options.text}
        />
      ))}
    </div>
  );
};

const TimeSeriesPanel = ({ panel, frames, width, height, range, alerts }) => (
  <TimeSeries
    frames={frames} structureRev={1} width={width} height={height} timeRange={range} timeZone="utc"
    legend={panel.options.legend}
  >
    {(builder) => { builder.addHook("drawClear", (plot) => drawAlerts(plot, alerts)); return null; }}
  </TimeSeries>
);

// Grafana draws annotations with a duration like this.
const drawAlerts = (plot, alerts) => {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const [start, end] of alerts) {
    const left = Math.max(plot.valToPos(start, "x", true), bbox.left);
    const right = Math.min(plot.valToPos(end, "x", true), bbox.left + bbox.width);
    ctx.fillStyle = "rgba(242, 73, 92, 0.12)";
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = "rgba(242, 73, 92, 0.9)";
    ctx.fillRect(left, bbox.top + bbox.height - 3, right - left, 3);
  }
  ctx.restore();
};

const TablePanel = ({ panel, frames, width, height }) => (
  <TableNG
    data={frames[0]} width={width} height={height} sortBy={panel.options.sortBy} cellHeight={panel.options.cellHeight}
    structureRev={1} enableVirtualization={false}
  />
);

const TextPanel = ({ panel }) => (
  <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />
);

// Rows are buckets, columns are steps, and the color is the rate of the bucket.
const HeatmapPanel = ({ frames, width, height, range }) => {
  const canvas = useRef(null);
  useEffect(() => {
    const ctx = canvas.current.getContext("2d");
    const buckets = frames.map(({ fields: [, { labels, values }] }) => ({ bound: Number(labels.le.replace("+Inf", "Infinity")), values }))
      .sort((a, b) => a.bound - b.bound);
    const cells = buckets.map(({ values }, row) => (
      values.map((value, column) => Math.max(0, (value ?? 0) - (row ? buckets[row - 1].values[column] ?? 0 : 0)))
    ));
    const max = Math.max(...cells.flat());
    const [left, bottom] = [56, 24];
    const [cellWidth, cellHeight] = [(width - left) / cells[0].length, (height - bottom) / cells.length];
    ctx.clearRect(0, 0, width, height);
    cells.forEach((values, row) => values.forEach((value, column) => {
      const level = Math.sqrt(value / max);
      if (value <= 0) return;
      ctx.fillStyle = `rgb(${40 + 213 * level}, ${28 + 150 * level * level}, ${20 + 60 * level ** 3})`;
      ctx.fillRect(left + column * cellWidth, height - bottom - (row + 1) * cellHeight + 1, Math.ceil(cellWidth), cellHeight - 1);
    }));
    ctx.fillStyle = theme.colors.text.primary;
    ctx.font = "12px Inter, sans-serif";
    ctx.textAlign = "right";
    buckets.forEach(({ bound }, row) => {
      const label = Number.isFinite(bound) ? (bound < 1 ? `${bound * 1000} ms` : `${bound} s`) : "+Inf";
      ctx.fillText(label, left - 6, height - bottom - (row + 0.5) * cellHeight + 4);
    });
    ctx.textAlign = "center";
    const [start, end] = [range.from.valueOf(), range.to.valueOf()];
    for (let time = Math.ceil(start / 36e5) * 36e5; time < end; time += 36e5) {
      ctx.fillText(new Date(time).toISOString().slice(11, 16), left + ((time - start) / (end - start)) * (width - left), height - 6);
    }
  });
  return <canvas ref={canvas} width={width} height={height} />;
};

const COMPONENTS = { stat: StatPanel, timeseries: TimeSeriesPanel, table: TablePanel, text: TextPanel, heatmap: HeatmapPanel };

export const Visualization = (props) => {
  const Component = COMPONENTS[props.panel.type];
  return props.panel.type === "text" || props.frames.length ? <Component {...props} /> : <NoData {...props} />;
};
