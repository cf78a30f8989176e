import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.TimestampType;

/**
 * Prints record batches as Apache Kafka's own client writes them, one line "COMPRESSION SIZE HEX"
 * each: a small one of records of all kinds and a large one of many blocks. The C tests know the
 * same records (codec/kafka_batch_test.c). It made spec/kafka/batches.txt:
 *
 * <pre>java -cp 'JARS/*' tests/tools/KafkaBatches.java</pre>
 */
public class KafkaBatches {
    static final long BASE_TIMESTAMP = 1700000000000L;

    public static void main(String[] arguments) {
        for (CompressionType type : CompressionType.values()) {
            print(type, "small", 20, 20);
            if (type != CompressionType.NONE)
                print(type, "large", 24, 2000);
        }
    }

    static void print(CompressionType type, String name, int count, int valueStep) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20),
            Compression.of(type).build(), TimestampType.CREATE_TIME, 0L);
        for (int i = 0; i < count; i++) {
            byte[] key = i % 3 == 0 ? null : bytes("key-" + i);
            byte[] value = i % 5 == 4 ? null : bytes(("" + i).repeat(i % 4 * valueStep));
            Header[] headers = new Header[i % 4];
            for (int h = 0; h < headers.length; h++)
                headers[h] = new RecordHeader("h" + h, h == 1 ? null : bytes("x" + i));
            builder.append(BASE_TIMESTAMP + i * 7 * (i % 2 == 0 ? 1 : -1), key, value, headers);
        }
        ByteBuffer out = builder.build().buffer();
        byte[] batch = new byte[out.remaining()];
        out.get(batch);
        System.out.println(type.name + " " + name + " " + HexFormat.of().formatHex(batch));
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
