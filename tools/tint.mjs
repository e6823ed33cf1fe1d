// Shows shaders to Tint, the compiler of Chrome and Dawn, which sees what naga does not: barriers that not every thread of
// a workgroup reaches. node tools/tint.mjs PACKAGE FOLDER, with npm's package `webgpu` and a folder of *.wgsl.
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [packageFolder, folder] = process.argv.slice(2);
const { create, globals } = await import(pathToFileURL(join(resolve(packageFolder), 'index.js')));
Object.assign(globalThis, globals);

// Kept: what Dawn gives lives no longer than this.
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('no adapter: Dawn needs a Vulkan driver');
const features = ['subgroups', 'shader-f16'].filter((feature) => adapter.features.has(feature));
if (features.length < 2) throw new Error(`the adapter has only ${features}`);
const device = await adapter.requestDevice({ requiredFeatures: features });

// What is wrong with a shader; naga's dialect leaves out the directives that Tint asks for.
async function wrong(text) {
    const code = (text.includes('subgroup') ? 'enable subgroups;\n' : '') + text;
    device.pushErrorScope('validation');
    const info = await device.createShaderModule({ code }).getCompilationInfo();
    await device.popErrorScope();
    return info.messages.filter((message) => message.type === 'error');
}

const planted = `
    var<workgroup> sums: array<u32, 64>;
    @group(0) @binding(0) var<storage, read_write> y: array<u32>;
    @compute @workgroup_size(64)
    fn main(@builtin(local_invocation_index) thread: u32) {
        if (y[thread] == 0u) {
            sums[thread] = 1u;
            workgroupBarrier();
        }
        y[thread] = sums[63u - thread];
    }`;
const sound = planted.replace('if (y[thread] == 0u) {', '{');
if ((await wrong(planted)).length === 0) throw new Error('a barrier in non-uniform control flow is not seen');
if ((await wrong(sound)).length > 0) throw new Error('a barrier that all threads reach is refused');

const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl'));
if (files.length === 0) throw new Error(`no shaders in ${folder}`);
let refused = 0;
for (const name of files) {
    for (const { lineNum, message } of await wrong(readFileSync(join(folder, name), 'utf8'))) {
        console.error(`${name}:${lineNum}: ${message}`);
        refused += 1;
    }
}
console.log(`${files.length} shaders, ${refused} errors; a planted one is refused`);
// Dawn keeps threads that end with the process alone.
process.exit(refused > 0 ? 1 : 0);
