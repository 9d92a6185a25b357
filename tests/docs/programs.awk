# Writes the C++ blocks of a page to <to>_1.cpp, <to>_2.cpp, … and prints their names:
#   awk -v to=folder/page -f programs.awk page.md
/^```cpp$/ { inside = 1; file = to "_" ++count ".cpp"; text = ""; next }
/^```$/ && inside {
    inside = 0
    if (text !~ /int main\(/) {
        print FILENAME ": snippet " count " is no program" >"/dev/stderr"
        exit 1
    }
    # Only what changed is written, so that it is not compiled again.
    old = ""
    while ((getline line <file) > 0) old = old line "\n"
    close(file)
    if (old != text) printf "%s", text >file
    close(file)
    print file
}
inside { text = text $0 "\n" }
