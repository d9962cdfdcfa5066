/** What a run watches of its machine, and whoever else wants to see the same. */
import type { Observer } from "../base/index.ts";

/** The methods of an observer, which may stand on its prototype. */
export function methodsOf(observer: Observer | undefined): Observer {
  if (!observer) return {};
  const methods: Record<string, unknown> = {};
  for (let from: object = observer; from && from !== Object.prototype; from = Object.getPrototypeOf(from) as object)
    for (const name of Object.getOwnPropertyNames(from)) {
      const method = (observer as Record<string, unknown>)[name];
      if (name !== "constructor" && typeof method === "function")
        methods[name] ??= (...values: unknown[]) => (method as (...all: unknown[]) => unknown).apply(observer, values);
    }
  return methods as Observer;
}
