// The committed bundle that the Python tests read too: a dense layer of 4 inputs and 3 classes, with 16 reference inputs.

import { readFileSync } from "node:fs";

const FOLDER = new URL("../../../tests/golden/bundle-1/", import.meta.url);

export const golden = (file: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(new URL(file, FOLDER)));
