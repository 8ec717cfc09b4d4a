// Rewrites a picture with a palette of 256 colours: node shrink.mjs FILE

import { readFileSync, writeFileSync } from "node:fs";
import UPNG from "upng-js";

const [, , file] = process.argv;
const picture = UPNG.decode(readFileSync(file));
const [rgba] = UPNG.toRGBA8(picture);
writeFileSync(file, Buffer.from(UPNG.encode([rgba], picture.width, picture.height, 256)));
