// Reads AsyncAPI documents as the published parser does; prints of each what it found, as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const verdicts = [];
for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(path, "utf8"));
  verdicts.push({
    diagnostics: diagnostics.map(({ severity, code, message, path: at }) => ({ severity, code, message, at: at.join(".") })),
    channels: document?.allChannels().length ?? 0,
    operations: document?.allOperations().length ?? 0,
    messages: document?.allMessages().length ?? 0,
  });
}
console.log(JSON.stringify(verdicts));
