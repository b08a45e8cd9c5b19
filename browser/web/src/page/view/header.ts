// The name of the bundle.

import type { Bundle } from "../bundle";
import { byId } from "./dom";

export function showName({ manifest }: Bundle): void {
  document.title = `${manifest.name} · edgeloop`;
  byId("name").textContent = manifest.name;
  byId("about").textContent = `release ${manifest.version}, from ${manifest.source.file}`;
}
