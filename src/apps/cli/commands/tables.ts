/** `dmalink tables`: what every device behind an IOMMU could reach, from a snapshot of its tables or from what debugfs prints. */
import { DmaError } from "../../../base/index.ts";
import { type Command, command } from "../command.ts";
import { flag, JSON_ANSWER, text } from "../options.ts";
import { answerStyle, print, sayError } from "../terminal/print.ts";

export const tables: Command = command({
  name: "tables",
  summary: "decode page tables of a machine: dumped from its memory, or as debugfs prints them",
  description:
    "Follows the tables of a VT-d unit (root, context, PASID) or of an SMMUv3 (streams, context descriptors) and page tables of both stages in a snapshot of memory, and says for each device " +
    "what it could reach, in which page sizes, and where larger ones would fit. The registers come from NAME.json " +
    "beside NAME.snap[.gz], or from --root. A copy of debugfs iommu/intel/domain_translation_struct or dmar_translation_struct, " +
    "or of both in one file, is read too: that needs no dump.",
  arguments: [
    { name: "SNAPSHOT", meaning: "pages of memory (NAME.snap, NAME.snap.gz), or debugfs text", completes: "file" },
  ],
  options: {
    root: text("ADDRESS", "root table address or RTADDR register, if no NAME.json lies beside the snapshot"),
    device: text("BDF", "this device only: 0000:00:04.0"),
    tree: flag("draw the tree"),
    json: JSON_ANSWER,
  },
  examples: [
    "dmalink tables machine.snap.gz --tree",
    "sudo cat /sys/kernel/debug/iommu/intel/domain_translation_struct > live.txt; dmalink tables live.txt",
  ],
  async run({ arguments: [path], options }) {
    const { looksLikeDebugfsTables, readDebugfsTables, Snapshot, unitTables } = await import(
      "../../../analysis/index.ts"
    );
    const { pageTablesText, writePageTablesJson } = await import("../../../report/index.ts");
    const { bdfOf, parsePciAddress, parseRoot, readRegisters, readWhole, textHead } = await import(
      "../files/snapshot.ts"
    );
    const file = path!;
    try {
      const device = options.device === undefined ? undefined : parsePciAddress("--device", options.device);
      const root = options.root === undefined ? undefined : parseRoot(options.root);
      const bytes = await readWhole(file);
      if (looksLikeDebugfsTables(textHead(bytes))) {
        const unit = readDebugfsTables(new TextDecoder().decode(bytes), device && bdfOf(device));
        const facts = { file, pages: unit.tablePages, isDebugfs: true };
        if (options.json) writePageTablesJson(file, unit, (text) => process.stdout.write(text));
        else print(pageTablesText(facts, unit, options.tree, answerStyle()));
        return 0;
      }
      const snapshot = Snapshot.parse(bytes); // its damage is told with the offset
      const registers = root === undefined ? await readRegisters(file) : { root };
      const unit = unitTables(snapshot, registers, device);
      if (options.json) writePageTablesJson(file, unit, (text) => process.stdout.write(text));
      else print(pageTablesText({ file, pages: snapshot.pageCount, ...registers }, unit, options.tree, answerStyle()));
      return 0;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      const named = error.message.startsWith(file) || !/SNAPSHOT|TABLES_ROOT/.test(error.code);
      sayError(`${named ? "" : `${file}: `}${error.message}`);
      return 2;
    }
  },
});
