// From answers of Prometheus to Grafana's data frames, with the field configuration of the panel applied.
// How a frame is drawn stands in panels.jsx.

import {
  FieldType, applyFieldOverrides, cacheFieldDisplayNames, createTheme, standardTransformers, standardTransformersRegistry, toDataFrame,
  transformDataFrame,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";

export const theme = createTheme({ colors: { mode: "dark" } });
export const asIs = (text) => text;
const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
standardTransformersRegistry.setInit(() => [...transformers.values()].map((each) => ({
  id: each.id, name: each.name, transformation: async () => each, editor: () => null,
})));

const NO_DIGITS = { "+Inf": Infinity, "-Inf": -Infinity, NaN: null };
const number = (text) => (text in NO_DIGITS ? NO_DIGITS[text] : Number(text));

// Series with gaps where Prometheus has no sample: Grafana gets them so, and `spanNulls` decides what to draw.
const overTime = (target, series, range) => {
  const found = new Map(series.values.map(([time, value]) => [time, number(value)]));
  const times = [];
  for (let time = range.start; time <= range.end; time += range.step) times.push(time);
  return toDataFrame({
    refId: target.refId,
    name: series.name,
    fields: [
      { name: "Time", type: FieldType.time, values: times.map((time) => time * 1000), config: {} },
      {
        name: "Value", type: FieldType.number, labels: series.metric, config: { displayNameFromDS: series.name },
        values: times.map((time) => found.get(time) ?? null),
      },
    ],
  });
};

const ofNow = (target, series) => toDataFrame({
  refId: target.refId,
  fields: [
    { name: "Time", type: FieldType.time, values: [series.value[0] * 1000], config: {} },
    {
      name: "Value", type: FieldType.number, labels: series.metric, config: { displayNameFromDS: series.name },
      values: [number(series.value[1])],
    },
  ],
});

const asTable = (target, answer, several) => {
  const labels = [...new Set(answer.flatMap((each) => Object.keys(each.metric)))];
  const column = (name) => ({
    name, type: FieldType.string, config: {}, values: answer.map((each) => each.metric[name] ?? ""),
  });
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, config: {}, values: answer.map((each) => each.value[0] * 1000) },
      ...labels.map(column),
      {
        name: several ? `Value #${target.refId}` : "Value", type: FieldType.number, config: {},
        values: answer.map((each) => number(each.value[1])),
      },
    ],
  });
};

const set = (config, path, value) => {
  const [key, ...rest] = path;
  if (rest.length) set((config[key] ??= {}), rest, value);
  else config[key] = value;
};

const configure = (frames, fieldConfig) => {
  for (const frame of frames) {
    for (const field of frame.fields) {
      const shown = field.config.displayName ?? field.config.displayNameFromDS ?? field.name;
      const config = { ...structuredClone(fieldConfig.defaults ?? {}), ...field.config };
      for (const { matcher, properties } of fieldConfig.overrides ?? []) {
        if (matcher.options === shown) for (const { id, value } of properties) set(config, id.split("."), value);
      }
      if (field.type !== FieldType.number) { delete config.unit; delete config.thresholds; delete config.mappings; }
      delete config.links;
      field.config = config;
    }
  }
  const nothing = { defaults: {}, overrides: [] };
  const done = applyFieldOverrides({ data: frames, fieldConfig: nothing, replaceVariables: asIs, theme, timeZone: "utc" });
  cacheFieldDisplayNames(done);
  return done;
};

export const framesOf = async (panel, answers, range) => {
  const targets = panel.targets ?? [];
  let frames = [];
  for (const target of targets) {
    const answer = answers[target.refId];
    if (target.format === "table") { if (answer.length) frames.push(asTable(target, answer, targets.length > 1)); }
    else if (target.instant) frames.push(...answer.map((series) => ofNow(target, series)));
    else frames.push(...answer.map((series) => overTime(target, series, range)));
  }
  if (panel.transformations?.length) frames = await firstValueFrom(transformDataFrame(panel.transformations, frames));
  return configure(frames, panel.fieldConfig ?? {});
};
