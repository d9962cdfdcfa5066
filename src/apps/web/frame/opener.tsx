/** Opening a trace: dropped anywhere, or chosen. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { isTables, openTables } from "../tables/session.ts";
import { go } from "./route.ts";
import { openFiles } from "./session.ts";

/** Traces are opened where one is; page tables are shown in their own view. */
function open(files: readonly File[]): void {
  if (!files.some(isTables)) {
    void openFiles(files);
    return;
  }
  void openTables(files);
  go("tables");
}

/** Takes files that are dropped on the page; whether some are held over it. */
export function useDrop(): boolean {
  const [dragging, setDragging] = useState(false);
  useEffect(() => {
    const over = (event: DragEvent): void => {
      event.preventDefault();
      setDragging(true);
    };
    const leave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setDragging(false);
    };
    const drop = (event: DragEvent): void => {
      event.preventDefault();
      setDragging(false);
      open([...(event.dataTransfer?.files ?? [])]);
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);
  return dragging;
}

/** The page before a trace is open. */
export function Opener(): VNode {
  return (
    <section class="opener">
      <h2 class="message">Drop a DMA trace here</h2>
      <p>
        <label class="button">
          Choose files
          <input
            type="file"
            multiple
            class="hidden"
            onChange={({ currentTarget }) => {
              open([...(currentTarget.files ?? [])]);
              currentTarget.value = ""; // so that the same file can be chosen again
            }}
          />
        </label>
      </p>
      <p class="quiet">
        trace.dat, perf.data, text of trace-cmd, tracefs or perf, a kernel log; plain, gzip or zstd. A kernel log of the
        same machine may be dropped together with the trace.
      </p>
      <p class="promise">Everything is read in this page. Nothing is sent anywhere.</p>
      <pre>sudo dmalink record --for 10s --probes -o trace.dat{"\n"}dmalink ui trace.dat</pre>
    </section>
  );
}
