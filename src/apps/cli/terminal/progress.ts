/** One line on stderr for what takes longer than a second; only where a person is looking. */
import { visibleInLine } from "../../../report/text/index.ts";

export interface Progress {
  say(message: string): void;
  done(): void;
}

export function progressLine(): Progress {
  const start = performance.now();
  let shown = false;
  return {
    say(message) {
      if (!process.stderr.isTTY || performance.now() - start < 1000) return;
      process.stderr.write(`\r\x1b[K${visibleInLine(message)} ...`);
      shown = true;
    },
    done() {
      if (shown) process.stderr.write("\r\x1b[K");
      shown = false;
    },
  };
}
