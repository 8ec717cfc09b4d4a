// Converts Prometheus results to Grafana data frames, with the field configuration of the panel applied.

import {
  FieldType, applyFieldOverrides, cacheFieldDisplayNames, createTheme, standardTransformers, standardTransformersRegistry, toDataFrame,
  transformDataFrame,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";

export const theme = createTheme({ colors: { mode: "dark" } });
export const identity = (text) => text;

const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
standardTransformersRegistry.setInit(() => [...transformers.values()].map((each) => ({
  id: each.id, name: each.name, transformation: async () => each, editor: () => null,
})));

const SPECIAL = { "+Inf": Infinity, "-Inf": -Infinity, NaN: null };
const parse = (text) => (text in SPECIAL ? SPECIAL[text] : Number(text));

const seriesFrame = (target, series, times, values) => toDataFrame({
  refId: target.refId,
  name: series.name,
  fields: [
    { name: "Time", type: FieldType.time, values: times.map((time) => time * 1000), config: {} },
    { name: "Value", type: FieldType.number, labels: series.metric, config: { displayNameFromDS: series.name }, values },
  ],
});

// Grafana receives a null where Prometheus has no sample; `spanNulls` decides whether to connect the line.
const rangeFrame = (target, series, range) => {
  const samples = new Map(series.values.map(([time, value]) => [time, parse(value)]));
  const times = [];
  for (let time = range.start; time <= range.end; time += range.step) times.push(time);
  return seriesFrame(target, series, times, times.map((time) => samples.get(time) ?? null));
};

const instantFrame = (target, series) => seriesFrame(target, series, [series.value[0]], [parse(series.value[1])]);

const tableFrame = (target, result, single) => {
  const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))];
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, config: {}, values: result.map((series) => series.value[0] * 1000) },
      ...labels.map((name) => (
        { name, type: FieldType.string, config: {}, values: result.map((series) => series.metric[name] ?? "") }
      )),
      {
        name: single ? "Value" : `Value #${target.refId}`, type: FieldType.number, config: {},
        values: result.map((series) => parse(series.value[1])),
      },
    ],
  });
};

const setProperty = (config, [key, ...rest], value) => {
  if (rest.length) setProperty((config[key] ??= {}), rest, value);
  else config[key] = value;
};

const configure = (frames, fieldConfig) => {
  for (const field of frames.flatMap((frame) => frame.fields)) {
    const name = field.config.displayName ?? field.config.displayNameFromDS ?? field.name;
    field.config = { ...structuredClone(fieldConfig.defaults ?? {}), ...field.config };
    for (const { matcher, properties } of fieldConfig.overrides ?? []) {
      if (matcher.options === name) for (const { id, value } of properties) setProperty(field.config, id.split("."), value);
    }
    if (field.type !== FieldType.number) for (const option of ["unit", "thresholds", "mappings"]) delete field.config[option];
    delete field.config.links;
  }
  const none = { defaults: {}, overrides: [] };
  const data = applyFieldOverrides({ data: frames, fieldConfig: none, replaceVariables: identity, theme, timeZone: "utc" });
  cacheFieldDisplayNames(data);
  return data;
};

export const framesOf = async (panel, results, range) => {
  const targets = panel.targets ?? [];
  let frames = targets.flatMap((target) => {
    const result = results[target.refId];
    if (target.format === "table") return result.length ? [tableFrame(target, result, targets.length === 1)] : [];
    return result.map((series) => (target.instant ? instantFrame(target, series) : rangeFrame(target, series, range)));
  });
  if (panel.transformations?.length) frames = await firstValueFrom(transformDataFrame(panel.transformations, frames));
  return configure(frames, panel.fieldConfig ?? {});
};
