import { expect, test, vi } from "vitest";
import { checkContinually } from "../src/page/parity/continuous";
import type { Session } from "../src/page/session";

/** A session whose model is judged by `judge`. */
function session(judge: () => Promise<void>) {
  const made = Object.assign(new EventTarget(), {
    current: { model: {}, standing: { used: true, text: "" }, engine: { name: "Engine", runtime: "litertjs" } },
    exclusively: <T>(work: () => Promise<T>) => work(),
    judge: vi.fn(judge),
    report: vi.fn(),
  });
  const fire = async (type: string, times: number) => {
    for (let i = 0; i < times; i++) made.dispatchEvent(new Event(type));
    await Promise.resolve();
  };
  checkContinually(made as unknown as Session, 10);
  return { made, fire };
}

test("the open model is judged again after every tenth answer, counted anew for each model", async () => {
  const { made, fire } = session(async () => {});
  await fire("answer", 9);
  expect(made.judge).toHaveBeenCalledTimes(0);
  await fire("answer", 11);
  expect(made.judge).toHaveBeenCalledTimes(2);
  await fire("answer", 9);
  await fire("change", 1);
  await fire("answer", 9);
  expect(made.judge).toHaveBeenCalledTimes(2);
});

test("a model that is not used is not judged again, and one that throws then is reported", async () => {
  const { made, fire } = session(() => Promise.reject(new Error("device lost")));
  await fire("answer", 10);
  await vi.waitFor(() => expect(made.report).toHaveBeenCalledTimes(1));
  expect(made.report.mock.calls[0]![0]).toMatchObject({ used: false, text: expect.stringContaining("device lost") });
  made.current.standing.used = false;
  await fire("answer", 10);
  expect(made.judge).toHaveBeenCalledTimes(1);
});
