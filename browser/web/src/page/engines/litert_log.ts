// LiteRT's own lines. It writes them to stderr, which Emscripten shows as errors, also where it only mentions something.

const NOTE = /^(└ )?INFO: |^I\d{4} [\d:.]+ /;
// no browser has what LiteRT calls an NPU; it says so each time it starts
const NO_NPU = /^WARNING: \[npu_registry\.cc:\d+\] NPU accelerator could not be loaded/;

/** Whether the line says nothing that anyone must do something about. */
export const isNote = (line: string): boolean => NOTE.test(line) || NO_NPU.test(line);

/** Without the places in LiteRT's source. */
export const withoutSource = (line: string): string =>
  line
    .replace(/^(└ )?(ERROR: |E\d{4} [\d:.]+ +\d+ \S+\] )(\[[^\]]*\]\s*)?/, "")
    .replace(/\n=== Source Location.*$/s, "");
