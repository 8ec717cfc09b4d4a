// One drawing a panel type, by Grafana's own components; the heatmap, which they lack, by hand.

import { getFieldDisplayValues, renderMarkdown } from "@grafana/data";
import { BarGauge, BigValue, TimeSeries, VizRepeater } from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";
import { useEffect, useRef } from "react";
import { asIs, theme } from "./frames.js";

const Nothing = ({ height }) => (
  <div style={{ height, display: "grid", placeItems: "center", color: theme.colors.text.secondary }}>No data</div>
);

const displayed = (panel, frames) => getFieldDisplayValues({
  fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: asIs, theme,
  data: frames, timeZone: "utc",
});

const Stat = ({ panel, frames, width, height }) => {
  const [first] = displayed(panel, frames);
  return (
    <BigValue
      value={first.display} width={width} height={height} theme={theme} colorMode={panel.options.colorMode}
      graphMode={panel.options.graphMode} textMode={panel.options.textMode} justifyMode="auto"
    />
  );
};

const Bars = ({ panel, frames, width, height }) => (
  <VizRepeater
    source={frames} width={width} height={height} orientation="horizontal" itemSpacing={6} autoGrid={false}
    getValues={() => displayed(panel, frames)}
    getAlignmentFactors={(values) => ({
      title: values.reduce((longest, each) => (each.display.title.length > longest.length ? each.display.title : longest), ""),
      text: "888 ms",
    })}
    renderValue={({ value, width: wide, height: high, alignmentFactors }) => (
      <BarGauge
        value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)}
        text={{}} width={wide} height={high} orientation="horizontal" theme={theme} itemSpacing={6} lcdCellWidth={12}
        displayMode={panel.options.displayMode} showUnfilled namePlacement={panel.options.namePlacement}
        alignmentFactors={alignmentFactors}
      />
    )}
  />
);

const Lines = ({ panel, frames, width, height, range, marks }) => (
  <TimeSeries
    frames={frames} structureRev={1} width={width} height={height} timeRange={range} timeZone="utc"
    legend={panel.options.legend}
  >
    {(builder) => { builder.addHook("drawClear", (plot) => marked(plot, marks)); return null; }}
  </TimeSeries>
);

// The marks of alerts, as Grafana draws annotations with a duration.
const marked = (plot, marks) => {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const [from, to] of marks) {
    const left = Math.max(plot.valToPos(from, "x", true), bbox.left);
    const right = Math.min(plot.valToPos(to, "x", true), bbox.left + bbox.width);
    ctx.fillStyle = "rgba(242, 73, 92, 0.12)";
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = "rgba(242, 73, 92, 0.9)";
    ctx.fillRect(left, bbox.top + bbox.height - 3, right - left, 3);
  }
  ctx.restore();
};

const Rows = ({ panel, frames, width, height }) => (
  <TableNG
    data={frames[0]} width={width} height={height} sortBy={panel.options.sortBy} cellHeight={panel.options.cellHeight}
    structureRev={1} enableVirtualization={false}
  />
);

const Words = ({ panel }) => (
  <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />
);

// A heatmap of buckets: each row a bucket, each column a step; colour is the rate of this bucket alone.
const Heat = ({ frames, width, height, range }) => {
  const canvas = useRef(null);
  useEffect(() => {
    const ctx = canvas.current.getContext("2d");
    const rows = frames.map((frame) => ({ le: Number(frame.fields[1].labels.le.replace("+Inf", "Infinity")), values: frame.fields[1].values }))
      .sort((a, b) => a.le - b.le);
    const cells = rows.map((row, n) => row.values.map((value, at) => Math.max(0, (value ?? 0) - (n ? rows[n - 1].values[at] ?? 0 : 0))));
    const high = Math.max(...cells.flat());
    const [left, bottom] = [56, 24];
    const [wide, tall] = [(width - left) / cells[0].length, (height - bottom) / cells.length];
    ctx.clearRect(0, 0, width, height);
    cells.forEach((row, n) => row.forEach((value, at) => {
      const share = Math.sqrt(value / high);
      if (value <= 0) return;
      ctx.fillStyle = `rgb(${40 + 213 * share}, ${28 + 150 * share * share}, ${20 + 60 * share ** 3})`;
      ctx.fillRect(left + at * wide, height - bottom - (n + 1) * tall + 1, Math.ceil(wide), tall - 1);
    }));
    ctx.fillStyle = theme.colors.text.primary;
    ctx.font = "12px Inter, sans-serif";
    ctx.textAlign = "right";
    rows.forEach((row, n) => {
      const name = Number.isFinite(row.le) ? (row.le < 1 ? `${row.le * 1000} ms` : `${row.le} s`) : "+Inf";
      ctx.fillText(name, left - 6, height - bottom - (n + 0.5) * tall + 4);
    });
    ctx.textAlign = "center";
    const [start, end] = [range.from.valueOf(), range.to.valueOf()];
    for (let time = Math.ceil(start / 36e5) * 36e5; time < end; time += 36e5) {
      ctx.fillText(new Date(time).toISOString().slice(11, 16), left + ((time - start) / (end - start)) * (width - left), height - 6);
    }
  });
  return <canvas ref={canvas} width={width} height={height} />;
};

const KINDS = { stat: Stat, bargauge: Bars, timeseries: Lines, table: Rows, text: Words, heatmap: Heat };

export const Drawing = (props) => {
  const Kind = KINDS[props.panel.type];
  return props.panel.type === "text" || props.frames.length ? <Kind {...props} /> : <Nothing {...props} />;
};
