// Every call of @huggingface/hub that the local Hub serves. Prints one line a step: "ok NAME", or "failed NAME: REASON".
// usage: node hub.mjs ENDPOINT TOKEN NAMESPACE
import assert from "node:assert/strict";
import * as hf from "@huggingface/hub";

const [hubUrl, accessToken, namespace] = process.argv.slice(2);
const hub = { hubUrl, accessToken };
const id = Math.random().toString(36).slice(2, 10);
const blob = (content) => new Blob([content]);

function noise(size, seed) {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let i = 0; i < size; i++) bytes[i] = (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 16;
  return bytes;
}

async function step(name, action) {
  try {
    await action();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`failed ${name}: ${String(error?.stack ?? error).slice(0, 600).replaceAll("\n", " | ")}`);
  }
}

async function collect(generator) {
  const found = [];
  for await (const each of generator) found.push(each);
  return found;
}

const read = async (params) => {
  const content = await hf.downloadFile({ ...hub, ...params });
  return content && new Uint8Array(await content.arrayBuffer());
};
const text = async (params) => Buffer.from(await read(params)).toString();
const refused = (action, status) =>
  assert.rejects(action, (error) => error.statusCode === status || assert.fail(`${error.statusCode}: ${error}`));

await step("who am I", async () => assert.equal((await hf.whoAmI(hub)).name, namespace));

for (const type of ["model", "dataset", "space"]) {
  const repo = { type, name: `${namespace}/${type}-${id}` };
  const named = (name) => `${type}: ${name}`;
  const log = "logs/events.out.tfevents.1";
  await step(named("create"), async () => {
    const sdk = type === "space" ? "static" : undefined;
    const { repoUrl } = await hf.createRepo({ ...hub, repo, sdk, visibility: "private" });
    assert(repoUrl.startsWith(hubUrl));
  });
  await step(named("create again is 409"), () =>
    refused(hf.createRepo({ ...hub, repo, sdk: type === "space" ? "static" : undefined }), 409));
  await step(named("exists"), async () => {
    assert.equal(await hf.repoExists({ ...hub, repo }), true);
    assert.equal(await hf.repoExists({ ...hub, repo: { type, name: `${namespace}/absent-${id}` } }), false);
  });
  await step(named("access"), async () => {
    await hf.checkRepoAccess({ ...hub, repo });
    await refused(hf.checkRepoAccess({ hubUrl, repo }), 401);
  });
  for (const useXet of [true, false]) {
    const how = useXet ? "xet" : "lfs";
    await step(named(`upload a large file by ${how}`), async () => {
      const content = noise(500_000, useXet ? 1 : 2);
      await hf.uploadFile({ ...hub, repo, useXet, file: { path: `${log}.${how}`, content: new Blob([content]) } });
      for (const xet of [true, false]) assert.deepEqual(await read({ repo, path: `${log}.${how}`, xet }), content);
    });
  }
  await step(named("upload small files"), async () => {
    const files = [{ path: "a.txt", content: blob("one") }, { path: "b/c.txt", content: blob("two") }];
    await hf.uploadFiles({ ...hub, repo, files });
    assert.equal(await text({ repo, path: "b/c.txt" }), "two");
  });
  await step(named("list files"), async () => {
    const files = await collect(hf.listFiles({ ...hub, repo, recursive: true, expand: true }));
    const large = files.find((file) => file.path === `${log}.xet`);
    assert.equal(large.size, 500_000);
    assert(large.lfs && large.xetHash && large.lastCommit);
  });
  await step(named("file exists"), async () => {
    assert.equal(await hf.fileExists({ ...hub, repo, path: "a.txt" }), true);
    assert.equal(await hf.fileExists({ ...hub, repo, path: "absent.txt" }), false);
  });
  await step(named("file info"), async () => {
    const info = await hf.fileDownloadInfo({ ...hub, repo, path: `${log}.xet` });
    assert.equal(info.size, 500_000);
    assert(info.xet);
    assert.equal(await hf.downloadFile({ ...hub, repo, path: "absent.txt" }), null);
  });
  await step(named("paths info"), async () => {
    const found = await hf.pathsInfo({ ...hub, repo, paths: ["a.txt", "b", "absent"], expand: true });
    assert.deepEqual(found.map((each) => each.type).sort(), ["directory", "file"]);
  });
  await step(named("commit and delete"), async () => {
    const operations = [
      { operation: "addOrUpdate", path: "a.txt", content: blob("three") },
      { operation: "delete", path: "b/c.txt" },
    ];
    const { commit } = await hf.commit({ ...hub, repo, title: "Change", description: "why", operations });
    assert.equal(commit.oid.length, 40);
    assert.equal(await text({ repo, path: "a.txt", revision: commit.oid.slice(0, 10) }), "three");
    assert.equal(await hf.fileExists({ ...hub, repo, path: "b/c.txt" }), false);
  });
  await step(named("a stale parent is 412"), async () => {
    const commits = await collect(hf.listCommits({ ...hub, repo }));
    const operations = [{ operation: "addOrUpdate", path: "x.txt", content: blob("x") }];
    const stale = { ...hub, repo, title: "Stale", operations, parentCommit: commits.at(-1).oid };
    await refused(hf.commit(stale), 412);
  });
  await step(named("delete files"), async () => {
    await hf.deleteFiles({ ...hub, repo, paths: [`${log}.lfs`] });
    await hf.deleteFile({ ...hub, repo, path: "logs" });
    assert.equal(await hf.fileExists({ ...hub, repo, path: `${log}.xet` }), false);
  });
  await step(named("list and count commits"), async () => {
    const commits = await collect(hf.listCommits({ ...hub, repo, batchSize: 2 }));
    assert.equal(commits.length, await hf.countCommits({ ...hub, repo, revision: "main" }));
    assert(commits.some((commit) => commit.title === "Change"));
  });
  await step(named("branches"), async () => {
    await hf.createBranch({ ...hub, repo, branch: "second" });
    await refused(hf.createBranch({ ...hub, repo, branch: "second" }), 409);
    await hf.createBranch({ ...hub, repo, branch: "second", overwrite: true });
    await hf.createBranch({ ...hub, repo, branch: "bare", empty: true });
    assert.equal(await hf.fileExists({ ...hub, repo, path: "a.txt", revision: "bare" }), false);
    await hf.uploadFile({ ...hub, repo, branch: "second", file: { path: "branch.txt", content: blob("x") } });
    assert.equal(await hf.fileExists({ ...hub, repo, path: "branch.txt" }), false);
    await hf.deleteBranch({ ...hub, repo, branch: "second" });
  });
  await step(named("pull request"), async () => {
    const operations = [{ operation: "addOrUpdate", path: "proposed.bin", content: new Blob([noise(50_000, 3)]) }];
    const { pullRequestUrl } = await hf.commit({ ...hub, repo, title: "Propose", operations, isPullRequest: true });
    assert(pullRequestUrl.includes("/discussions/1"));
    assert.equal(await hf.fileExists({ ...hub, repo, path: "proposed.bin", revision: "refs/pr/1" }), true);
  });
  await step(named("info"), async () => {
    const info = { model: hf.modelInfo, dataset: hf.datasetInfo, space: hf.spaceInfo }[type];
    assert.equal((await info({ ...hub, name: repo.name })).name, repo.name);
    const list = { model: hf.listModels, dataset: hf.listDatasets, space: hf.listSpaces }[type];
    const found = await collect(list({ ...hub, search: { owner: namespace } }));
    assert(found.some((each) => each.name === repo.name));
  });
  await step(named("delete"), async () => {
    await hf.deleteRepo({ ...hub, repo });
    assert.equal(await hf.repoExists({ ...hub, repo }), false);
  });
}

const bucket = { type: "bucket", name: `${namespace}/bucket-${id}` };
const content = noise(400_000, 4);
await step("bucket: create", async () => {
  const { repoUrl } = await hf.createRepo({ ...hub, repo: bucket, visibility: "private" });
  assert.equal(repoUrl, `${hubUrl}/buckets/${bucket.name}`);
});
await step("bucket: create again is 409", () => refused(hf.createRepo({ ...hub, repo: bucket }), 409));
await step("bucket: exists", async () => assert.equal(await hf.repoExists({ ...hub, repo: bucket }), true));
await step("bucket: upload", async () => {
  const files = [
    { path: "logs/events.tfevents.1", content: new Blob([content]) },
    { path: "notes.txt", content: blob("hello") },
  ];
  await hf.uploadFiles({ ...hub, repo: bucket, files });
});
await step("bucket: download", async () => {
  assert.deepEqual(await read({ repo: bucket, path: "logs/events.tfevents.1" }), content);
  assert.equal(await text({ repo: bucket, path: "notes.txt" }), "hello");
});
await step("bucket: list", async () => {
  const files = await collect(hf.listFiles({ ...hub, repo: bucket, recursive: true }));
  assert.deepEqual(files.map((file) => file.path), ["logs/events.tfevents.1", "notes.txt"]);
  const top = await collect(hf.listFiles({ ...hub, repo: bucket }));
  assert.deepEqual(top.map((file) => file.type), ["directory", "file"]);
});
await step("bucket: paths info", async () => {
  const [found, ...more] = await hf.pathsInfo({ ...hub, repo: bucket, paths: ["notes.txt", "absent"] });
  assert.deepEqual([found.size, more.length], [5, 0]);
});
await step("bucket: file exists", async () => {
  assert.equal(await hf.fileExists({ ...hub, repo: bucket, path: "notes.txt" }), true);
  assert.equal(await hf.fileExists({ ...hub, repo: bucket, path: "absent" }), false);
});
await step("bucket: copy", async () => {
  const [source] = await hf.pathsInfo({ ...hub, repo: bucket, paths: ["logs/events.tfevents.1"] });
  const copy = { operation: "copy", path: "copy.bin", sourceXetHash: source.xetHash, sourceRepo: bucket };
  await hf.commit({ ...hub, repo: bucket, title: "Copy", operations: [copy] });
  assert.deepEqual(await read({ repo: bucket, path: "copy.bin" }), content);
});
await step("bucket: delete a file", async () => {
  await hf.deleteFile({ ...hub, repo: bucket, path: "notes.txt" });
  assert.equal(await hf.downloadFile({ ...hub, repo: bucket, path: "notes.txt" }), null);
});
await step("bucket: delete", async () => {
  await hf.deleteRepo({ ...hub, repo: bucket });
  assert.equal(await hf.repoExists({ ...hub, repo: bucket }), false);
});
