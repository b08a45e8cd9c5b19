// A TF.js graph model in a folder.

import { readFileSync, realpathSync } from "node:fs";
import { dirname, isAbsolute, relative, resolve } from "node:path";
import { type Graph, openGraph } from "../tfjs_graph";

/** Load `path` and the weights it names. Throws when a path leads out of `root`, or TF.js refuses the model. */
export function loadGraph(root: string, path: string): Promise<Graph> {
  const file = inside(root, resolve(root, path));
  const json = JSON.parse(readFileSync(file, "utf8"));
  return openGraph(path, json, (shard) => readFileSync(inside(root, resolve(dirname(file), shard))));
}

function inside(root: string, path: string): string {
  const real = realpathSync(path);
  const way = relative(realpathSync(root), real);
  if (way.startsWith("..") || isAbsolute(way)) throw new Error(`${path} is outside the model's folder`);
  return real;
}
