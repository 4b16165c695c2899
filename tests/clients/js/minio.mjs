// The MinIO JavaScript client, unmodified, as people who come from MinIO have it in their code.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import * as Minio from 'minio';

const endpoint = new URL(process.env.BASALT_ENDPOINT);
const client = new Minio.Client({
  endPoint: endpoint.hostname, port: Number(endpoint.port), useSSL: endpoint.protocol === 'https:', pathStyle: true, region: 'us-east-1',
  accessKey: process.env.AWS_ACCESS_KEY_ID, secretKey: process.env.AWS_SECRET_ACCESS_KEY,
});
const bucket = `minio-js-${randomBytes(6).toString('hex')}`;
const gather = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
};
const bytes = async (...args) => Buffer.concat(await gather(await client.getObject(bucket, ...args)));

assert.equal(await client.bucketExists(bucket), false);
await client.makeBucket(bucket, 'us-east-1');
assert.equal(await client.bucketExists(bucket), true);
assert.ok((await client.listBuckets()).some((item) => item.name === bucket));

const small = randomBytes(40000);
await client.putObject(bucket, 'dir/small ü', small, small.length, { 'Content-Type': 'text/x-test', 'X-Amz-Meta-Colour': 'grey' });
assert.ok(small.equals(await bytes('dir/small ü')));
const stat = await client.statObject(bucket, 'dir/small ü');
assert.equal(stat.size, small.length);
assert.equal(stat.metaData['content-type'], 'text/x-test');
assert.equal(stat.metaData.colour, 'grey');
await client.putObject(bucket, 'streamed', Readable.from([small.subarray(0, 1), small.subarray(1)]), small.length);
assert.ok(small.equals(await bytes('streamed')));
await client.putObject(bucket, 'unknown-length', Readable.from([small, small]));
assert.ok(Buffer.concat([small, small]).equals(await bytes('unknown-length')));

const large = randomBytes(20 * 1024 * 1024);
const file = join(process.env.SCRATCH, 'large');
writeFileSync(file, large);
client.partSize = 5 * 1024 * 1024;
await client.fPutObject(bucket, 'large', file, {});
await client.fGetObject(bucket, 'large', `${file}.back`);
assert.ok(large.equals(readFileSync(`${file}.back`)));
const partial = Buffer.concat(await gather(await client.getPartialObject(bucket, 'large', 6000000, 1000)));
assert.ok(large.subarray(6000000, 6001000).equals(partial));

await client.copyObject(bucket, 'copied', `/${bucket}/large`, new Minio.CopyConditions());
assert.ok(large.equals(await bytes('copied')));

const listing = await gather(client.listObjectsV2(bucket, '', true));
assert.deepEqual(listing.map((item) => item.name).sort(), ['copied', 'dir/small ü', 'large', 'streamed', 'unknown-length']);
assert.deepEqual((await gather(client.listObjects(bucket, '', false))).filter((item) => item.prefix).map((item) => item.prefix), ['dir/']);
assert.deepEqual(await gather(client.listIncompleteUploads(bucket, '', true)), []);

const reply = await fetch(await client.presignedGetObject(bucket, 'streamed', 60));
assert.equal(reply.status, 200);
assert.ok(small.equals(Buffer.from(await reply.arrayBuffer())));
const put = await fetch(await client.presignedPutObject(bucket, 'by-url', 60), { method: 'PUT', body: 'by url' });
assert.equal(put.status, 200);
assert.equal((await bytes('by-url')).toString(), 'by url');

await assert.rejects(client.getObject(bucket, 'absent'), { code: 'NoSuchKey' });
await client.removeObject(bucket, 'by-url');
await client.removeObjects(bucket, listing.map((item) => item.name));
assert.deepEqual(await gather(client.listObjectsV2(bucket, '', true)), []);
await client.removeBucket(bucket);
console.log('minio: all as expected');
