/** `dmalink ui`: the page, with traces open in it. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { flag, JSON_ANSWER, TRACE, wholeNumber } from "../options.ts";

export const ui: Command = command({
  name: "ui",
  summary: "traces as pictures in a browser: timeline, address space, findings, strategies",
  description:
    "Serves the page to this machine's browser and opens it, until Ctrl-C. Nothing is sent anywhere: the page reads the traces by " +
    "itself. It also lies in the package (dist/web), for any server, or to be opened from a disk.",
  arguments: [{ ...TRACE, optional: true, many: true }],
  options: {
    port: wholeNumber("the port; without it one that is free", 0),
    noOpen: flag("only say where the page is"),
    follow: flag("read on while the first trace grows, every two seconds"),
    json: JSON_ANSWER,
  },
  examples: ["dmalink ui trace.dat", "dmalink ui --no-open --port 8000 before.dat after.dat"],
  async run({ arguments: traces, options }) {
    const { port = 0 } = options;
    if (port > 65_535) throw new UsageError(`--port ${port}: a port is at most 65535`);
    const { serveUi } = await import("../ui/ui.ts");
    return serveUi(traces, { ...options, port });
  },
});
