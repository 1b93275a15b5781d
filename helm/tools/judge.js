// judge.js TOOLS < documents.json: are these manifests what Kubernetes takes?
//
// documents.json is a list of {name, document}. Each is judged by the types of its apiVersion and kind, field by field: the
// compiler complains of what is unknown, missing or of another type, and the schema behind the type of numbers and words that are
// out of range. Prints one complaint a line; the exit code says whether there were any.
"use strict";
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const tools = process.argv[2];
const fromTools = createRequire(path.join(tools, "package.json"));
const ts = fromTools("typescript");
const documents = JSON.parse(fs.readFileSync(0, "utf8"));
const complaints = [];

// The module that has a kind's type: kubernetes-models/apps/v1/DaemonSet.
function moduleOf({ apiVersion, kind }) {
  const home = apiVersion.startsWith("monitoring.coreos.com/") ? "@kubernetes-models/prometheus-operator" : "kubernetes-models";
  const name = `${home}/${apiVersion}/${kind}`;
  try {
    fromTools.resolve(name);
    return name;
  } catch {
    return null;
  }
}

function judgeBySchema({ name, document, module }) {
  const Model = fromTools(module)[document.kind];
  try {
    new Model(document).validate();
  } catch (error) {
    complaints.push(`${name}: ${error.message}`);
  }
}

// One constant a document, whose type is the kind's; a literal with a field that its type has not is an error of the compiler.
function judgeByTypes(known) {
  const source = known
    .map(
      ({ document, module }, index) =>
        `import type { I${document.kind} as Kind${index} } from "${module}";\n` +
        `export const document${index}: Kind${index} = ${JSON.stringify(document, null, 1)};`,
    )
    .join("\n");
  const file = path.join(tools, "manifests.ts");
  const options = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.CommonJS,
    moduleResolution: ts.ModuleResolutionKind.Node10,
  };
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile.bind(host);
  host.getSourceFile = (name, ...rest) => (name === file ? ts.createSourceFile(name, source, rest[0], true) : read(name, ...rest));
  const program = ts.createProgram([file], options, host);
  const lines = source.split("\n");
  for (const one of ts.getPreEmitDiagnostics(program)) {
    const text = ts.flattenDiagnosticMessageText(one.messageText, " ");
    if (!one.file || one.file.fileName !== file) {
      complaints.push(text);
      continue;
    }
    const { line } = one.file.getLineAndCharacterOfPosition(one.start);
    let start = line;
    while (!/^export const document(\d+)/.test(lines[start]) && start > 0) start--;
    const index = /^export const document(\d+)/.exec(lines[start]);
    complaints.push(`${index ? known[Number(index[1])].name : "?"}: ${lines[line].trim()}: ${text}`);
  }
}

const known = [];
for (const { name, document } of documents) {
  const module = moduleOf(document);
  if (module) known.push({ name, document, module });
  else complaints.push(`${name}: nobody knows ${document.kind} of ${document.apiVersion}`);
}
known.forEach(judgeBySchema);
judgeByTypes(known);
for (const complaint of complaints) console.log(complaint);
process.exit(complaints.length > 0 ? 1 : 0);
