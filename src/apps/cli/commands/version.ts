/** `dmalink version`: what runs here. */
import { type Command, command } from "../command.ts";
import { JSON_ANSWER } from "../options.ts";
import { print, printJson } from "../terminal/print.ts";

/** The line that `--version` prints too. */
export const versionLine = (version: string): string =>
  `dmalink/${version} ${process.platform}-${process.arch} node-${process.version}\n`;

export const version: Command = command({
  name: "version",
  summary: "the version, the machine, and Node's version",
  description: "What a report of a fault should begin with; --version prints the same line.",
  arguments: [],
  options: { json: JSON_ANSWER },
  examples: ["dmalink version"],
  async run({ options, program }) {
    const { platform, arch, version: node } = process;
    if (options.json) printJson({ schema: "dmalink.version/1", version: program.version, platform, arch, node });
    else print(versionLine(program.version));
    return 0;
  },
});
