import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;

/** How a client gets in where not everybody may: by the properties in the file that CLIENT_PROPERTIES names, if it does. */
final class Access {
    private Access() {
    }

    /** These settings and those. */
    static Map<String, Object> with(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        String file = System.getenv("CLIENT_PROPERTIES");
        if (file != null) {
            Properties properties = new Properties();
            try (Reader text = Files.newBufferedReader(Path.of(file))) {
                properties.load(text);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            properties.forEach((name, value) -> all.put((String) name, value));
        }
        return all;
    }
}
