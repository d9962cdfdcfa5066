/**
 * What is open is closed when the process ends: at exit, at an exception that nobody caught, and at SIGINT, SIGTERM, SIGHUP.
 *
 * A signal that somebody else listens to is theirs: then only the end of the process closes. Nothing is listened to while
 * nothing is open. SIGKILL needs nobody: the kernel closes the files, and unmaps and unpins with them.
 */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

const open = new Set<() => void>();

/** `close` runs at the end of the process, the latest first; the returned function takes it back. */
export function closeAtExit(close: () => void): () => void {
  if (open.size === 0) {
    process.on("exit", closeAll);
    for (const signal of SIGNALS) process.on(signal, onSignal);
  }
  open.add(close);
  return () => {
    if (!open.delete(close) || open.size > 0) return;
    process.off("exit", closeAll);
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
}

function closeAll(): void {
  for (const close of [...open].reverse()) {
    try {
      close();
    } catch (error) {
      process.stderr.write(`dmalink: at the end of the process: ${(error as Error).message}\n`);
    }
  }
}

function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  closeAll();
  process.off(signal, onSignal);
  process.kill(process.pid, signal); // nobody listens any more: the process ends as if nobody ever had
}
