# Writes OUTPUT from build_info.cpp.in; run at each build, so that the commit is that of the build
# and not that of the last configuration. An unchanged file is left alone.
find_package(Git QUIET)
set(GIT_COMMIT "")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE_DIR} rev-parse --show-toplevel
    OUTPUT_VARIABLE toplevel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  # An unpacked archive inside some other repository is no build of a commit.
  file(REAL_PATH ${SOURCE_DIR} real_source)
  if(toplevel STREQUAL real_source)
    execute_process(
      COMMAND ${GIT_EXECUTABLE} -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=*
      OUTPUT_VARIABLE GIT_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
configure_file(${SOURCE_DIR}/train/build_info.cpp.in ${OUTPUT} @ONLY)
