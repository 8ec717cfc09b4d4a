// Reduces a PNG file to a palette of 256 colors: node shrink.mjs FILE

import { readFileSync, writeFileSync } from "node:fs";
import UPNG from "upng-js";

const [, , file] = process.argv;
const image = UPNG.decode(readFileSync(file));
const [rgba] = UPNG.toRGBA8(image);
writeFileSync(file, Buffer.from(UPNG.encode([rgba], image.width, image.height, 256)));
